"""Who may do what on the broker: one ACL as the bus says it, and as kafka-python does."""

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

_PREFIX = "User:"
_ANY_HOST = "*"

EVERYTHING = ACLFilter(
    None,
    _ANY_HOST,
    ACLOperation.ANY,
    ACLPermissionType.ALLOW,
    ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
)
"""Matches every ACL that allows something from any host."""


@dataclass(frozen=True, slots=True)
class Acl:
    """`principal` (without "User:") may do `operation` on a resource, or on all whose name starts with `name`."""

    principal: str
    operation: Operation
    resource_type: Resource
    name: str
    pattern: Pattern = "LITERAL"


def to_kafka(acl: Acl) -> ACL:
    """As kafka-python says it."""
    resource = ResourcePattern(ResourceType[acl.resource_type], acl.name, ACLResourcePatternType[acl.pattern])
    operation = ACLOperation[acl.operation]
    return ACL(_PREFIX + acl.principal, _ANY_HOST, operation, ACLPermissionType.ALLOW, resource)


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
    )
