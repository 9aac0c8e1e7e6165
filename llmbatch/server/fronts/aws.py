"""Who asks, and where they think that they are: what AWS's clients say of it, for the ARNs that they are given back."""

from __future__ import annotations

import re
from typing import Any

from fastapi import Request

_SCOPE = re.compile(r"Credential=[^/,\s]+/\d{8}/([a-z0-9-]{1,40})/")
_ACCOUNT = re.compile(r"arn:[^:]*:iam::(\d{12}):")
_REGION, NO_ACCOUNT = "us-east-1", "000000000000"


def region_of(request: Request) -> str:
    """The region that the client signed for."""
    scope = _SCOPE.search(request.headers.get("authorization", ""))
    return scope[1] if scope else _REGION


def account_of(role: Any) -> str:
    """The account of a role's ARN."""
    account = _ACCOUNT.match(role) if isinstance(role, str) else None
    return account[1] if account else NO_ACCOUNT


__all__ = ["NO_ACCOUNT", "account_of", "region_of"]
