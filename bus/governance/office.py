"""The governance office: applies departments, contracts, views and grants, each as a whole or not at all.

What it changes in the database is in force when the call returns; `announce` tells running workers at
once, and a worker that missed it finds the new revision by itself within a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bus.access.broker import RESERVED, Broker
from bus.access.store import Change, GrantStore
from bus.contracts.directory import Department, Directory, Purpose
from bus.contracts.registry import Registered, Registry
from bus.core import names
from bus.core.columns import Column
from bus.core.conditions import check
from bus.core.contracts import Contract, parse_contract
from bus.core.grants import PUBLIC, Grant, GrantSet, parse_grant_set
from bus.core.masks import check_mask
from bus.core.openness import public_problems
from bus.errors import BusError, Invalid, InvalidDeclaration, NotGranted
from bus.governance.declassification import Declassifications
from bus.views.catalogue import Applied, Declarations, Shape, shapes


class Governance:
    """One office over the stores. Methods block (database, broker) and are called from threads."""

    def __init__(
        self,
        *,
        registry: Registry,
        directory: Directory,
        declarations: Declarations,
        grants: GrantStore,
        declassifications: Declassifications,
        broker: Broker,
        announce: Callable[[str], None],
    ) -> None:
        self._registry = registry
        self._directory = directory
        self._declarations = declarations
        self._grants = grants
        self._declassifications = declassifications
        self._broker = broker
        self._announce = announce

    def shapes(self) -> dict[str, Shape]:
        """The declared views with their columns, as open as declassifications in force let them be."""
        return shapes(self._declarations, self._registry.contracts(), self._declassifications.lowered())

    def add_department(self, department: Department) -> None:
        """Enrols a department: its entry, its principal on the broker, its ACLs. Harmless when repeated."""
        if not names.is_id(department.id):
            raise Invalid(f"'{department.id}' is not an id: it must match [a-z][a-z0-9_]*.")
        if department.id in RESERVED:
            raise Invalid(f"'{department.id}' is a name of the bus itself, no department can have it.")
        self._broker.enrol(department.id)
        self._directory.put_department(department)

    def add_purpose(self, purpose: Purpose) -> None:
        if not names.is_id(purpose.id):
            raise Invalid(f"'{purpose.id}' is not an id: it must match [a-z][a-z0-9_]*.")
        self._directory.put_purpose(purpose)

    def register_contract(
        self, schema: Mapping[str, Any], *, subject: str, department: str, administrator: bool
    ) -> Registered:
        """Registers a contract under its subject, and opens its topic. Only its owner or an administrator may.

        Raises `NotGranted` for somebody else's entity, `UnknownDepartment`, and what the registry refuses.
        """
        contract = parse_contract(schema)
        self._refuse_foreign(contract, department, administrator)
        self._directory.department(contract.department)
        registered = self._registry.register(schema, subject=subject)
        self._broker.open_topic(registered.contract)
        self._announce("contracts")
        return registered

    def retire_contract(self, entity: str, *, department: str, administrator: bool) -> Contract:
        """From now on the entity takes no new versions and no events. Only its owner or an administrator may.

        Raises `InvalidDeclaration` while a view reads it, `NotGranted`, `UnknownEntity`.
        """
        contract = self._registry.contract(entity)
        self._refuse_foreign(contract, department, administrator)
        readers = sorted(view.name for view in self._declarations.all().values() if contract.id in view.entities)
        if readers:
            text = f"{contract.id} is read by {', '.join(readers)}. Drop these views, or change them, first."
            raise InvalidDeclaration(text, problems=readers)
        retired = self._registry.retire(contract.id)
        self._announce("contracts")
        return retired

    def apply_view(self, doc: Mapping[str, Any]) -> Applied:
        """Declares or changes a view; running workers begin to build it. Raises `InvalidDeclaration`."""
        lowered = self._declassifications.lowered()
        applied = self._declarations.apply(doc, self._registry.contracts(), lowered)
        if applied.changed:
            self._announce("views")
        return applied

    def drop_view(self, name: str) -> None:
        """Takes a view back. Refused while grants name it or another view reads it."""
        self._declarations.get(name)
        holders = [grant.id for grant in self._grants.all(view=name)]
        holders += [view.name for view in self._declarations.all().values() if name in view.reads]
        if holders:
            text = f"view '{name}' is used by {', '.join(holders)}. Revoke or drop these first."
            raise InvalidDeclaration(text, problems=holders)
        self._declarations.drop(name)
        self._announce("views")

    def declassify(self, doc: Mapping[str, Any], *, os_user: str) -> str:
        """Lets one column show one field more openly than its contract does; returns the declassification's id.

        Raises `InvalidDeclaration` naming every problem, `FourEyes`.
        """
        natural = shapes(self._declarations, self._registry.contracts())

        def columns(view: str) -> Mapping[str, Column] | None:
            return {column.name: column for column in natural[view].columns} if view in natural else None

        number = self._declassifications.apply(doc, columns, os_user=os_user)
        self._announce("views")
        return number

    def reclassify(self, number: str, *, officer: str, reason: str) -> None:
        """Takes a declassification back, at once. Raises `NotFound`."""
        self._declassifications.revoke(number, officer=officer, reason=reason)
        self._announce("views")

    def declassifications(self) -> list[dict[str, Any]]:
        """Every declassification with its state."""
        return self._declassifications.all()

    def apply_grants(self, doc: Mapping[str, Any], *, default_name: str, os_user: str) -> Change:
        """Replaces a set of grants. All or nothing, effective on return.

        Raises `InvalidDeclaration` naming every problem, `FourEyes`, `GrantConflict`.
        """
        grant_set = parse_grant_set(doc, default_name)
        self._check_grants(grant_set)
        change = self._grants.apply(grant_set, os_user=os_user)
        self._announce("grants")
        return change

    def revoke(self, grant_id: str, *, officer: str, reason: str) -> None:
        """Takes one grant back, at once. Raises `NotFound`."""
        self._grants.revoke(grant_id, officer, reason)
        self._announce("grants")

    def _refuse_foreign(self, contract: Contract, department: str, administrator: bool) -> None:
        owned = contract.owner == contract.department == department
        if not owned and not administrator:
            text = f"{department} may not register {contract.id}: it belongs to {contract.owner} ({contract.contact})."
            raise NotGranted(text)

    def _check_grants(self, grant_set: GrantSet) -> None:
        known, problems = self.shapes(), []
        departments = {department.id for department in self._directory.departments()} | {PUBLIC}
        purposes = {purpose.id for purpose in self._directory.purposes()}
        for grant in grant_set.grants:
            problems += [
                f"grant '{grant.id}': there is no {what} '{value}'. {names.nearest(value, ids)}"
                for what, value, ids in (
                    ("department", grant.consumer, departments),
                    ("purpose", grant.purpose, purposes),
                    ("view", grant.view, set(known)),
                )
                if value not in ids
            ]
            if grant.view in known:
                problems += _misfits(grant, known[grant.view]) + _leaks(grant, known[grant.view])
        if problems:
            text = f"the grant file has {len(problems)} problem(s): " + "; ".join(problems)
            raise InvalidDeclaration(text, problems=problems)


def _leaks(grant: Grant, shape: Shape) -> list[str]:
    """What everybody would be told that is not open: by a field, or by the rows that are chosen by it."""
    if grant.consumer != PUBLIC:
        return []
    found = public_problems(grant.view, shape.columns, (*grant.fields, *grant.rows.fields, *_asked_about(grant, shape)))
    return [f"grant '{grant.id}': {problem}" for problem in found]


def _questions(shape: Shape) -> list[str]:
    return [question.name for question in shape.view.questions]


def _asked_about(grant: Grant, shape: Shape) -> list[str]:
    """The fields that the grant's questions are about: an answer tells something of them."""
    return [name for question in shape.view.questions if question.name in grant.questions
            for name in question.where.fields]  # fmt: skip


def _misfits(grant: Grant, shape: Shape) -> list[str]:
    """Where a grant names fields that its view lacks, or conditions and masks that do not fit their kinds."""
    kinds = {column.name: column.kind for column in shape.columns}
    problems = [
        f"grant '{grant.id}': {grant.view} has no field '{field}'. {names.nearest(field, kinds)}"
        for field in grant.fields
        if field not in kinds
    ]
    problems += [
        f"grant '{grant.id}': {grant.view} declares no question '{name}'. {names.nearest(name, _questions(shape))}"
        for name in grant.questions
        if shape.view.question(name) is None
    ]
    try:
        check(grant.rows, kinds)
        for field, mask in grant.masks.items():
            if field in kinds:
                check_mask(mask, field, kinds[field])
    except BusError as error:
        problems.append(f"grant '{grant.id}': {error.detail}")
    return problems
