"""Each kind of error has one class."""

from callwarden.kernel import errors


def test_every_kind_of_error_has_its_class() -> None:
    assert set(errors.ERROR_OF_KIND) == set(errors.ErrorKind)
