import pyarrow.parquet as pq
import pytest

from data_prep import collect_docstrings as script
from shared.errors import InputError


def test_prose_is_kept_and_code_is_not():
    docstring = """Return the angle between two vectors of the space.

    The *angle* is given in ``radians``, see :func:`~numpy.arccos` and [the guide](https://x.y/z) for more of it.

    Parameters
    ----------
    axis : int, optional
        The axis along which the vectors are compared with each other.

    >>> angle([1, 0], [0, 1])
    1.5707963267948966

    ```python
    angle(the_first_vector_of_the_space, the_second_vector_of_the_space)
    ```

    ========  =====
    value     count
    ========  =====
    """
    assert script.clean_docstring(docstring) == [
        "Return the angle between two vectors of the space.",
        "The angle is given in radians, see numpy.arccos and the guide for more of it.",
        "The axis along which the vectors are compared with each other.",
    ]


@pytest.mark.faults
def test_same_versions_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "LIBRARIES", {"networkx": "networkx"})
    manifest = script.collect_docstrings(tmp_path / "a", quiet=True)
    script.collect_docstrings(tmp_path / "b", quiet=True)
    for name in ("docstrings.parquet", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    rows = pq.read_table(tmp_path / "a" / "docstrings.parquet").to_pylist()
    assert len(rows) == manifest["documents"] == len({row["id"] for row in rows}) > 500
    assert set(rows[0]) == {"id", "title", "text", "date", "source"}
    assert {row["source"].split()[0] for row in rows} == {"python", "networkx"}
    paragraphs = [p for row in rows for p in row["text"].split("\n\n")]
    assert len(paragraphs) == len(set(paragraphs))
    assert not [p for p in paragraphs if ">>>" in p or "```" in p]


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(script, "LIBRARIES", {"no_such_library": "no-such-library"})
    with pytest.raises(InputError, match="no_such_library is not installed"):
        script.versions()
