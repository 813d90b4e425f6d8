"""Every error of the bus, in one tree.

BusError
├── SetupError                     what the machine lacks, with the ways out (exit 1)
├── Fenced                         another builder owns the view now: drop the batch
├── DependentFailed                a view computed from this one cannot be: stop that, try the batch again
├── ChangesGone                    what changed since then is not kept: begin again with all rows
├── BadHost ForeignIdentity 400
├── Unauthorized            401    InvalidToken NotSignedIn
├── Refused                 403    NotGranted PurposeNotGranted ChannelNotGranted FieldNotGranted
│                                  FieldNotFilterable QuestionNotGranted NotAParty FourEyes Csrf Suppressed
│                                  AdministratorsOnly
├── Missing                 404    NotFound UnknownView UnknownDepartment UnknownEntity
├── MethodNotAllowed        405
├── NotAcceptable           406
├── Conflict                409    IncompatibleSchema ContractRetired DuplicateDatum GrantConflict
│                                  TestsFailed IdempotencyConflict
├── TooLarge ExportTooLarge 413
├── AddressTooLong          414
├── EncodingNotTaken        415
├── RangeBeyondEnd          416
├── Invalid                 422    UnknownField BadFilter BadCursor ExtraForbidden ContractViolation
│                                  RecursiveSchema ZeroSizeItems OwnerMissing InvalidSchema
│                                  InvalidDeclaration ConditionTooWide
├── RateLimited             429    TooManyAtOnce TooManyStreams BudgetSpent TooManyExports
└── Unavailable             503    Overloaded PolicyUnavailable PolicyStale PolicyError AuditUnavailable
                                   ViewRebuilding BrokerUnavailable DatabaseUnavailable
                                   RegistryUnavailable StreamStarting IdentityUnavailable

The docstring of a class is its message with the remedy; ``{names}`` in it are filled from the
keyword arguments, which also become members of the problem document (RFC 9457).
"""

from __future__ import annotations

import re
import string
from typing import Any, ClassVar


class _Blanks(dict[str, Any]):
    """Leaves a placeholder readable where the raiser gave no value for it."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


class BusError(Exception):
    """The bus could not do what was asked."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    retry_after_s: ClassVar[int | None] = None

    def __init__(self, detail: str | None = None, **members: Any) -> None:
        self.members = members
        template = detail if detail is not None else " ".join((self.__doc__ or "").split())
        self.detail = string.Formatter().vformat(template, (), _Blanks(members)) if detail is None else template
        super().__init__(self.detail)

    @property
    def title(self) -> str:
        """The class name as words: ``PurposeNotGranted`` is ``Purpose not granted``."""
        return re.sub(r"(?<!^)(?=[A-Z])", " ", type(self).__name__).capitalize()

    def problem(self, request_id: str = "") -> dict[str, Any]:
        """The RFC 9457 document for this error."""
        return {
            "type": f"urn:bus:error:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id,
            **self.members,
        }


class SetupError(BusError):
    """The local stack cannot run on this machine: {why}. Ways out: {ways_out}."""

    code = "setup"


class Fenced(BusError):
    """View {view} is built by another worker since epoch {epoch}; this batch was dropped."""

    code = "fenced"


class DependentFailed(BusError):
    """View {view} cannot be kept up to date: {why}. The view being written is tried again without it."""

    code = "dependent_failed"


class ChangesGone(BusError):
    """What changed in {view} since then is not kept: {why}. Begin again with a snapshot of its rows."""

    code = "changes_gone"


class ForeignIdentity(BusError):
    """The header '{header}' claims an identity, and no proxy is trusted to send it. Send a bearer token instead."""

    status = 400
    code = "invalid"


class BadHost(BusError):
    """The request is for another host than this one. Use the address that `bus status` shows."""

    status = 400
    code = "bad_host"


class Unauthorized(BusError):
    """Who is asking could not be established."""

    status = 401
    code = "invalid_token"


class InvalidToken(Unauthorized):
    """The bearer token is missing or not valid: {why}. Get a new one with `bus token DEPARTMENT`."""


class NotSignedIn(Unauthorized):
    """This page is for people who have signed in. Sign in at /login."""


class Refused(BusError):
    """The request is understood and refused."""

    status = 403
    code = "not_granted"


class NotGranted(Refused):
    """{department} has no grant on {view}. Ask {owner} ({contact}) for one, naming purpose and legal basis."""


class PurposeNotGranted(Refused):
    """{department} may not read {view} for purpose '{purpose}'. Send one of your granted purposes in the
    header `Purpose`, or ask {owner} ({contact}) for a grant for this one."""

    code = "purpose_not_granted"


class ChannelNotGranted(Refused):
    """{department} may not use {view} by {channel} for this purpose; granted: {granted}. Ask {owner} ({contact})."""

    code = "channel_not_granted"


class FieldNotGranted(Refused):
    """Field '{field}' of {view} is not in the grant. Leave it out, or ask {owner} ({contact}) for it."""

    code = "field_not_granted"


class FieldNotFilterable(Refused):
    """Field '{field}' of {view} is masked for you, so it cannot be used to filter, order, group or count.
    Ask {owner} ({contact}) for the unmasked field if the purpose needs it."""

    code = "field_not_filterable"


class QuestionNotGranted(Refused):
    """The grant does not answer the question '{question}' of {view}; granted: {granted}. Ask {owner} ({contact})."""

    code = "question_not_granted"


class FourEyes(Refused):
    """A grant needs two people: author and approver are the same person ({author}). Have somebody else approve."""

    code = "four_eyes"


class Csrf(Refused):
    """The form did not come from this portal. Reload the page and send it again."""

    code = "csrf"


class Suppressed(Refused):
    """The answer would describe fewer than {minimum} persons. Ask a wider question."""

    code = "suppressed"


class AdministratorsOnly(Refused):
    """Only an administrator of the bus may do this. Ask the governance office."""

    code = "not_granted"


class NotAParty(Refused):
    """{department} reports no datum of {view} that another department reports too, so it is shown none of its
    disagreements. {owner} answers for the view."""


class Missing(BusError):
    """There is no such thing here, or not for you."""

    status = 404
    code = "not_found"


class NotFound(Missing):
    """There is no {what} here, or not for you."""


class UnknownView(Missing):
    """There is no view '{view}'. `bus views list` shows the views there are."""

    code = "unknown_view"


class UnknownDepartment(Missing):
    """There is no department '{department}'. `bus departments list` shows them; an administrator adds one
    with `bus departments add`."""


class UnknownEntity(Missing):
    """There is no contract for '{entity}'. `bus contracts list` shows them; register one with
    `bus contracts register FILE.avsc --as DEPARTMENT`."""


class MethodNotAllowed(BusError):
    """{method} is not offered here. Offered: {allowed}."""

    status = 405
    code = "method_not_allowed"


class NotAcceptable(BusError):
    """The answer cannot be given as asked: {why}."""

    status = 406
    code = "not_acceptable"


class Conflict(BusError):
    """The request contradicts what there is."""

    status = 409
    code = "conflict"


class IncompatibleSchema(Conflict):
    """The schema of {subject} breaks readers of version {version}: {why}. Add fields with a default, or
    register a new entity."""

    code = "incompatible_schema"


class ContractRetired(Conflict):
    """{entity} is retired: it takes no new versions and no events. What was published stays. Ask {owner} what
    replaces it."""

    code = "contract_retired"


class DuplicateDatum(Conflict):
    """Field '{field}' already has an authoritative source in {owner}."""

    code = "duplicate_datum"


class GrantConflict(Conflict):
    """Grants {first} and {second} overlap in consumer, view, purpose, channel and validity. Keep one of them."""

    code = "grant_conflict"


class TestsFailed(Conflict):
    """The tests of this policy failed: {why}."""

    code = "tests_failed"


class IdempotencyConflict(Conflict):
    """The Idempotency-Key was used before with another body. Use a new key."""

    code = "idempotency_conflict"


class TooLarge(BusError):
    """What was sent is larger than {limit}. Send it in parts."""

    status = 413
    code = "too_large"


class ExportTooLarge(BusError):
    """The export would have more than {limit} rows, which is all that {why}. Filter it, ask for a part of it with
    `limit`, or have the grant's `limits: {{export_rows: n}}` raised."""

    status = 413
    code = "too_large"


class AddressTooLong(BusError):
    """The address is longer than {limit} bytes. Ask with fewer or shorter filters."""

    status = 414
    code = "too_large"


class EncodingNotTaken(BusError):
    """A body with Content-Encoding '{encoding}' is not taken. Send it as it is."""

    status = 415
    code = "not_acceptable"


class RangeBeyondEnd(BusError):
    """The range starts beyond the end. Start at a smaller offset."""

    status = 416
    code = "range"


class Invalid(BusError):
    """The request is not well formed."""

    status = 422
    code = "invalid"


class UnknownField(Invalid):
    """'{field}' is not a field of {view}. {hint}"""

    code = "unknown_field"


class BadFilter(Invalid):
    """The filter cannot be used: {why}"""

    code = "bad_filter"


class BadCursor(Invalid):
    """The cursor was not issued for this question, or the policy changed since. Ask for the first page again."""

    code = "bad_cursor"


class ExtraForbidden(Invalid):
    """The request has a member that is not known here: {field}."""

    code = "extra_forbidden"


class ContractViolation(Invalid):
    """The event breaks the contract of {entity}: field '{field}' expected {expected}, received {received}."""

    code = "contract_violation"


class RecursiveSchema(Invalid):
    """The schema refers to itself at '{field}'. Flatten it: a small message could exhaust every reader."""

    code = "recursive_schema"


class ZeroSizeItems(Invalid):
    """'{field}' is an array or map of items that take no bytes. A small message could exhaust every reader."""

    code = "zero_size_items"


class OwnerMissing(Invalid):
    """The contract lacks the required attribute '{attribute}'. Add it to the .avsc file and register again."""

    code = "owner_missing"


class InvalidSchema(Invalid):
    """The contract does not parse: {why}"""

    code = "invalid_schema"


class InvalidDeclaration(Invalid):
    """The declaration has {count} problem(s): {problems}"""

    code = "invalid_declaration"


class ConditionTooWide(Invalid):
    """The row condition expands to more than {limit} clauses. Use `in` instead of many `any`, or split the grant."""

    code = "condition_too_wide"


class RateLimited(BusError):
    """More than {limit} questions a minute. Wait, or ask for a higher limit in the grant."""

    status = 429
    code = "rate_limited"
    retry_after_s = 10


class TooManyAtOnce(RateLimited):
    """{department} already has {limit} questions under way. Wait for an answer before asking the next."""

    retry_after_s = 1


class TooManyStreams(RateLimited):
    """{who} already has {limit} streams open here. Close one, or read the topic with Kafka instead."""

    retry_after_s = 5


class BudgetSpent(RateLimited):
    """All {limit} questions of today for '{purpose}' are asked. The budget renews at {renews_at}; ask for a higher one
    in the grant (`limits: {{per_day: n}}`)."""


class TooManyExports(RateLimited):
    """{limit} exports are under way already, which is all that {whose} takes at once. Wait for one to end."""

    retry_after_s = 5


class Unavailable(BusError):
    """The bus cannot answer now. Try again shortly."""

    status = 503
    code = "unavailable"
    retry_after_s = 1


class Overloaded(Unavailable):
    """{limit} questions are under way already, which is all that the bus takes at once. Ask again shortly."""

    code = "overloaded"


class PolicyUnavailable(Unavailable):
    """The policy engine gave no decision, so nothing is shown. Try again shortly; operators: `bus status`."""

    code = "policy_unavailable"


class PolicyStale(Unavailable):
    """The policy engine's rules are too old or were rolled back, so nothing is shown. Operators: `bus policy show`."""

    code = "policy_stale"


class PolicyError(Unavailable):
    """The policy engine's decision could not be understood, so nothing is shown. Operators were alerted."""

    code = "policy_error"


class AuditUnavailable(Unavailable):
    """The disclosure could not be recorded, so nothing is shown. Try again shortly."""

    code = "audit_unavailable"


class ViewRebuilding(Unavailable):
    """View {view} is being built and not complete yet. Try again; `bus views wait {view}` returns when it is."""

    code = "view_rebuilding"
    retry_after_s = 2


class IdentityUnavailable(Unavailable):
    """The identity provider does not answer, so nobody can sign in. Try again shortly; operators: BUS_OIDC_ISSUER."""

    code = "identity_unavailable"


class BrokerUnavailable(Unavailable):
    """Kafka does not answer. Nothing was accepted; send it again. Operators: `bus status`, `bus up`."""

    code = "broker_unavailable"


class DatabaseUnavailable(Unavailable):
    """The database does not answer. Try again shortly; operators: `bus status`."""

    code = "database_unavailable"


class DependentsChanged(DatabaseUnavailable):
    """Other views are computed from view {view} than a moment ago. Nothing was written; the batch is tried again."""


class RegistryUnavailable(Unavailable):
    """The schema registry does not answer. Known contracts go on working; try again shortly."""

    code = "registry_unavailable"


class StreamStarting(Unavailable):
    """The stream of {view} is being made ready for the terms of your grant. Try again shortly; operators:
    `bus status` shows whether `streams` runs."""

    code = "stream_starting"
    retry_after_s = 2
