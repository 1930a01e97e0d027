"""Bodies that go to a named model: JSON members, a form with a file, or none."""

import re
from dataclasses import dataclass
from typing import Final

from gateway.service.client.errors import BadRequest

_BOUNDARY: Final = re.compile(
    rb'multipart/form-data\s*;.*?boundary="?([0-9A-Za-z\'()+_,./:=? -]{1,70})"?', re.IGNORECASE
)
_NAME: Final = re.compile(rb'(?:^|[;\s])name="?([^";\r\n]+)"?', re.IGNORECASE)
_MOST_NAME_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class MultipartForm:
    """A form as it came; only its `model` and `stream` fields are looked at.

    `model` is None where it names none; a field with the name is then put before the first.
    """

    content_type: bytes
    body: bytes
    model: str | None
    stream: bool
    _model_at: tuple[int, int]
    _mark: bytes

    def encode_for(self, served_name: str) -> bytes:
        """Return the form with the name that a backend knows the model by."""
        begin, end = self._model_at
        name = served_name.encode()
        if self.model is None:
            head = b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
            name = self._mark + head + name + b"\r\n"
        return self.body[:begin] + name + self.body[end:]


def parse_form(content_type: bytes, body: bytes) -> MultipartForm:
    """Find the fields that matter in a form. Raises BadRequest."""
    found = _BOUNDARY.match(content_type.strip())
    if found is None:
        raise BadRequest("this endpoint takes multipart/form-data with a boundary")
    mark = b"--" + found[1].rstrip()
    fields: dict[bytes, tuple[int, int]] = {}
    first = at = body.find(mark)
    while at >= 0:
        begin = at + len(mark)
        if body.startswith(b"--", begin):
            break
        at = body.find(b"\r\n" + mark, begin)
        if at < 0:
            raise BadRequest("the form is cut off")
        name, value = _read_part(body, begin, at)
        if name in fields:
            raise BadRequest(f"{name.decode('latin-1')}: is given more than once")
        if name:
            fields[name] = (value, at)
        at += 2
    if first < 0:
        raise BadRequest("the form has no field")
    where = fields.get(b"model", (first, first))
    if where[1] - where[0] > _MOST_NAME_BYTES:
        raise BadRequest("model: is no name of a model", param="model")
    try:
        model = body[slice(*where)].decode() if b"model" in fields else None
    except UnicodeDecodeError:
        raise BadRequest("model: is not UTF-8 text", param="model") from None
    stream = body[slice(*fields.get(b"stream", (0, 0)))].strip().lower() in {b"true", b"1"}
    return MultipartForm(content_type, body, model, stream, where, mark)


def _read_part(body: bytes, begin: int, end: int) -> tuple[bytes, int]:
    """Return a part's name where it is one of those looked at, and where its value begins."""
    head_end = body.find(b"\r\n\r\n", begin, end + 4)
    if head_end < 0 or head_end + 4 > end + 4:
        raise BadRequest("a part of the form has no head")
    for line in body[begin:head_end].split(b"\r\n"):
        if line.lower().startswith(b"content-disposition:"):
            found = _NAME.search(line)
            name = found[1] if found else b""
            return (name if name in _LOOKED_AT else b""), min(head_end + 4, end)
    return b"", min(head_end + 4, end)


_LOOKED_AT: Final = frozenset({b"model", b"stream"})
