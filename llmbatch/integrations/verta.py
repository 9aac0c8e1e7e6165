"""A model behind Verta's wire in; predictions for values and data frames out, by the names and defaults of Verta's own client.

``batch_predict`` sends a frame in parts. Beyond the original: with ``on_error="keep"`` a part that fails costs its own rows alone,
and with ``output`` the parts that are answered stay in that folder, so that the same call again asks only for the others.
"""

from __future__ import annotations

import gzip
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import pandas as pd
import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.util import Retry

from llmbatch.core.errors import JobError
from llmbatch.core.words import excerpt
from llmbatch.integrations.verta_parts import KeptParts
from llmbatch.sources.rows import plain

_ID = "verta-request-id"
_RETRIES, _STATUS, _FACTOR = 13, frozenset({404, 429, 500, 503, 504}), 0.3
_LONGEST_SECONDS = 120  # between two tries
_OF_THE_MODEL = (400, 502)  # such a reply in JSON is the model's, any other the way's to it
_ERROR = "error"


class DeployedModel:
    """A model at its ``prediction_url``. ``token`` is its access token; ``creds`` has ``headers()``, as Verta's credentials have.

    Calls raise ``RuntimeError`` for an error of the model, ``requests.HTTPError`` for one of the server, both with what it says,
    and ``requests.ConnectionError`` where it cannot be reached. A reply with one of ``retry_status`` is tried again up to
    ``max_retries`` times, after pauses that double from ``backoff_factor`` on, to two minutes at most.
    """

    def __init__(self, prediction_url: str, token: str | None = None, creds: Any = None) -> None:
        parts = urlsplit(prediction_url)
        if not (parts.scheme in ("http", "https") and parts.netloc and parts.path):
            raise ValueError(
                f"not a valid prediction_url: {prediction_url!r}: it is like https://host/api/v1/predict/ID"
            )
        self.prediction_url = prediction_url
        self._session = requests.Session()
        if creds is not None:
            self._session.headers.update({f"Grpc-Metadata-{name}": value for name, value in creds.headers().items()})
        if token is not None:
            self._session.headers["Access-Token"] = token

    def __repr__(self) -> str:
        return f"<DeployedModel at {self.prediction_url}>"

    def headers(self) -> CaseInsensitiveDict[str | bytes]:
        """A copy of the headers that go with every request."""
        return self._session.headers.copy()

    def get_curl(self) -> str:
        """A command that sends a request, with what goes into its body left empty."""
        headers = {**self.headers(), "Content-Type": "application/json"}
        said = " ".join(f"-H {shlex.quote(f'{name}: {value!s}')}" for name, value in headers.items())
        return f"curl -X POST {shlex.quote(self.prediction_url)} -d '' {said}"

    def predict(
        self,
        x: Any,
        compress: bool = False,
        max_retries: int = _RETRIES,
        always_retry_404: bool = False,
        always_retry_429: bool = False,
        retry_status: Set[int] = _STATUS,
        backoff_factor: float = _FACTOR,
        prediction_id: str | None = None,
    ) -> Any:
        """The model's answer to a value. ``always_retry_...`` add their status to ``retry_status``, which has both by default."""
        also = {status for status, wanted in ((404, always_retry_404), (429, always_retry_429)) if wanted}
        return self.predict_with_id(
            x, compress, max_retries, retry_status | also, backoff_factor, prediction_id=prediction_id
        )[1]

    def predict_with_id(
        self,
        x: Any,
        compress: bool = False,
        max_retries: int = _RETRIES,
        retry_status: Set[int] = _STATUS,
        backoff_factor: float = _FACTOR,
        prediction_id: str | None = None,
    ) -> tuple[str, Any]:
        """(the request's id, the model's answer). Without ``prediction_id`` the server names the request."""
        self._retry(max_retries, retry_status, backoff_factor)
        reply = self._post(self.prediction_url, _body(x), compress, prediction_id)
        return reply.headers.get(_ID, prediction_id or ""), _content(reply)

    def batch_predict(
        self,
        df: pd.DataFrame,
        batch_size: int = 100,
        compress: bool = False,
        max_retries: int = _RETRIES,
        retry_status: Set[int] = _STATUS,
        backoff_factor: float = _FACTOR,
        prediction_id: str | None = None,
        *,
        on_error: Literal["raise", "keep"] = "raise",
        output: str | Path | None = None,
    ) -> pd.DataFrame:
        """The model's answers to a frame's rows, ``batch_size`` rows a request, one after another; the index is the frame's.

        Of a part that fails the call raises, or with ``on_error="keep"`` its rows have None, and why in a column ``error``. With
        ``output`` answered parts stay in that folder, and the call with the same rows for the same URL sends only the others.
        """
        if on_error not in ("raise", "keep"):
            raise JobError(f"on_error is {on_error!r}, and must be raise or keep")
        if batch_size < 1:
            raise JobError(f"batch_size is {batch_size}, and must be at least 1")
        self._retry(max_retries, retry_status, backoff_factor)
        url = _batch_url(self.prediction_url)
        kept = None if output is None else KeptParts(Path(output).expanduser(), url)
        answered: list[pd.DataFrame] = []
        failed: list[_Failed] = []
        for part in _parts(df, batch_size):
            body = _body(part.to_dict(orient="split"))
            try:
                answered.append(self._answer(url, body, part, compress, prediction_id, kept))
            except (RuntimeError, requests.RequestException) as error:
                if on_error == "raise":
                    raise
                failed.append(_Failed(len(answered), part, str(error)))
                answered.append(pd.DataFrame(index=part.index))
        return _joined(answered, failed, df) if on_error == "keep" else _concat(answered, df)

    def _answer(
        self,
        url: str,
        body: bytes,
        part: pd.DataFrame,
        compress: bool,
        prediction_id: str | None,
        kept: KeptParts | None,
    ) -> pd.DataFrame:
        """The answer to one part. Raises ``RuntimeError`` for one that is not of the same rows."""
        known = None if kept is None else kept.get(body)
        content = _content(self._post(url, body, compress, prediction_id)) if known is None else known
        if not isinstance(content, Mapping) or not {"data", "index", "columns"} <= content.keys():
            raise RuntimeError(
                f"{url}: answered with {excerpt(repr(content))}, which is no frame with index, columns and data"
            )
        if len(content["data"]) != len(part):
            raise RuntimeError(f"{url}: answered {len(part):,} rows with {len(content['data']):,}")
        if kept is not None and known is None:
            kept.put(body, content)
        return pd.DataFrame(content["data"], index=_index(content["index"], part), columns=content["columns"])

    def _retry(self, most: int, status: Set[int], factor: float) -> None:
        """How the session tries again from now on; open connections stay where nothing changes."""
        current: Any = self._session.get_adapter("https://").max_retries
        wanted = (most, frozenset(status), factor)
        if (current.status, current.status_forcelist, current.backoff_factor) == wanted:
            return
        retry = Retry(
            total=None, connect=0, read=0, redirect=0, other=0, status=most, status_forcelist=wanted[1], backoff_factor=factor,
            backoff_max=_LONGEST_SECONDS, allowed_methods=None, raise_on_status=False,
        )  # fmt: skip
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))

    def _post(self, url: str, body: bytes, compress: bool, prediction_id: str | None) -> requests.Response:
        headers = {"Content-Type": "application/json"}
        if prediction_id is not None:
            headers[_ID] = prediction_id
        if compress:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, mtime=0)
        # no timeout of ours: a batch may take as long as it takes
        reply = self._session.post(url, data=body, headers=headers, allow_redirects=False)
        if reply.status_code >= 300:
            _raise(reply)
        return reply


class _Failed(NamedTuple):
    """A part without an answer, and where it is among all parts."""

    place: int
    part: pd.DataFrame
    message: str


def _raise(reply: requests.Response) -> None:
    """Raise what a reply that is no answer means."""
    try:
        body = reply.json()
    except ValueError:
        body = None
    said = body.get("message") if isinstance(body, dict) else None
    if reply.status_code in _OF_THE_MODEL and body is not None:
        raise RuntimeError(f"deployed model encountered an error: {said or json.dumps(body)}")
    text = said or excerpt(" ".join(reply.text.split()), 400) or reply.reason
    raise requests.HTTPError(f"{reply.status_code} for {reply.url}: {text}", response=reply)


def _content(reply: requests.Response) -> Any:
    try:
        return reply.json()
    except ValueError:
        raise RuntimeError(f"{reply.url}: answered with what is no JSON: {excerpt(reply.text)}") from None


def _body(value: Any) -> bytes:
    """As Verta's client writes it; what JSON has not (dates, decimals, NumPy's values) as our rows have it."""
    return json.dumps(value, default=lambda part: None if part is pd.NA else plain(part)).encode()


def _batch_url(url: str) -> str:
    if "/predict/" not in url:
        raise JobError(
            f"{url}: has no /predict/ in it, which batch_predict makes /batch-predict/ of: give the model's prediction URL"
        )
    return url.replace("/predict/", "/batch-predict/")


def _parts(frame: pd.DataFrame, size: int) -> Iterator[pd.DataFrame]:
    for start in range(0, len(frame), size):
        yield frame.iloc[start : start + size]


def _index(sent_back: Sequence[Any], part: pd.DataFrame) -> pd.Index[Any] | list[Any]:
    """The part's own index where the server sent it back, so that JSON changes no date and no tuple in it; else the server's."""
    ours = json.loads(_body(part.to_dict(orient="split")["index"]))
    return part.index if list(sent_back) == ours else list(sent_back)


def _concat(answered: Sequence[pd.DataFrame], frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(answered) if answered else pd.DataFrame(index=frame.index)


def _joined(answered: Sequence[pd.DataFrame], failed: Sequence[_Failed], frame: pd.DataFrame) -> pd.DataFrame:
    """All parts, those that failed with None in each column, and a column of errors."""
    places = {each.place: each.message for each in failed}
    columns = next((list(part.columns) for place, part in enumerate(answered) if place not in places), [])
    if _ERROR in columns:
        raise JobError(
            f"the model's answer has a column {_ERROR!r}, and errors are kept in one of that name: use on_error='raise'"
        )
    whole = [
        pd.DataFrame(dict.fromkeys(columns), index=part.index, dtype=object) if place in places else part
        for place, part in enumerate(answered)
    ]
    errors = [places.get(place) for place, part in enumerate(answered) for _ in range(len(part.index))]
    joined = _concat(whole, frame)
    joined[_ERROR] = pd.Series(errors, index=joined.index, dtype=object)
    return joined


__all__ = ["DeployedModel"]
