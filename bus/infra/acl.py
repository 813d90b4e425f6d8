"""Who may do what on the broker: one ACL as the bus says it, and as kafka-python does.

The bus itself makes only such as allow something from any host; others that somebody made are told apart from these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

Operation = Literal[
    "ALL", "READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE", "DESCRIBE_CONFIGS", "ALTER_CONFIGS"
]
Resource = Literal["TOPIC", "GROUP", "CLUSTER", "TRANSACTIONAL_ID"]
Pattern = Literal["LITERAL", "PREFIXED"]
Permission = Literal["ALLOW", "DENY"]

_PREFIX = "User:"
_ANY_HOST = "*"

EVERYTHING = ACLFilter(
    None,
    None,
    ACLOperation.ANY,
    ACLPermissionType.ANY,
    ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
)
"""Matches every ACL."""


@dataclass(frozen=True, slots=True)
class Acl:
    """`principal` (without "User:") may do `operation` on a resource, or on all whose name starts with `name`; or may
    not, where `permission` denies it. ``host``: from where; ``*`` is anywhere."""

    principal: str
    operation: Operation
    resource_type: Resource
    name: str
    pattern: Pattern = "LITERAL"
    host: str = _ANY_HOST
    permission: Permission = "ALLOW"

    def __str__(self) -> str:
        where = "" if self.host == _ANY_HOST else f" from {self.host}"
        many = "*" if self.pattern == "PREFIXED" else ""
        who = f"{self.permission.lower()} {self.principal} {self.operation}"
        return f"{who} {self.resource_type.lower()} {self.name}{many}{where}"


def to_kafka(acl: Acl) -> ACL:
    """As kafka-python says it."""
    resource = ResourcePattern(ResourceType[acl.resource_type], acl.name, ACLResourcePatternType[acl.pattern])
    operation = ACLOperation[acl.operation]
    return ACL(_PREFIX + acl.principal, acl.host, operation, ACLPermissionType[acl.permission], resource)


def exactly(acl: Acl) -> ACLFilter:
    """The filter that matches this one and no other."""
    exact = to_kafka(acl)
    resource = exact.resource_pattern
    return ACLFilter(
        exact.principal,
        exact.host,
        exact.operation,
        exact.permission_type,
        ResourcePatternFilter(resource.resource_type, resource.resource_name, resource.pattern_type),
    )


def from_kafka(item: ACL) -> Acl:
    """The inverse of `to_kafka`."""
    resource = item.resource_pattern
    return Acl(
        principal=item.principal.removeprefix(_PREFIX),
        operation=item.operation.name,
        resource_type=resource.resource_type.name,
        name=resource.resource_name,
        pattern=resource.pattern_type.name,
        host=item.host,
        permission=item.permission_type.name,
    )
