"""Undoing what a client compressed, with the right refusal where that cannot be."""

from __future__ import annotations

from gateway.content_encoding import (
    MAX_RATIO,
    BadEncodingError,
    BombError,
    DecodedTooLargeError,
    UnknownEncodingError,
    decode,
)
from router.policy.body import BadRequestError


def decode_body(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """The body without its `content-encoding`; sites get it plain.

    Raises:
        BadRequestError: 415 for another encoding than gzip, 413 for too much content, 400 for a broken one.
    """
    try:
        return decode(body, encoding, max_bytes)
    except UnknownEncodingError as error:
        message = f"The content-encoding {str(error)!r} is not taken: send the body plain or as gzip."
        raise BadRequestError(message, code="unsupported_content_encoding", status=415) from None
    except BombError:
        message = (
            f"The request body grows by more than {MAX_RATIO} times when it is decompressed: send it plain."
        )
        raise BadRequestError(message, code="request_too_large", status=413) from None
    except DecodedTooLargeError:
        message = f"The request body is larger than {max_bytes} bytes once it is decompressed."
        raise BadRequestError(message, code="request_too_large", status=413) from None
    except BadEncodingError as error:
        message = f"The body is not what its content-encoding says: {error}."
        raise BadRequestError(message, code="invalid_content_encoding") from None
