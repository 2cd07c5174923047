import json

import pytest

from shared.errors import InputError
from shared.training.checkpoints import MANIFEST, checkpoints, newest_good, rotate, seal, sweep, verify

FILES = {"model.safetensors": b"weights" * 50, "global_step1/shard.pt": b"moments" * 50, "trainer_state.json": b"{}"}


def make(output_dir, step):
    staging = output_dir / f".incoming-checkpoint-{step}"
    for name, content in FILES.items():
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).write_bytes(content + str(step).encode())
    seal(staging, output_dir / f"checkpoint-{step}", {"engine": "plain"})
    assert not staging.exists()
    return output_dir / f"checkpoint-{step}"


def flip(path, byte, bit=0):
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def test_a_whole_checkpoint_is_good(tmp_path):
    facts = verify(make(tmp_path, 1))
    assert facts["engine"] == "plain" and facts["files"].keys() == FILES.keys()


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "longer", "first bit", "last bit"])
def test_damage_is_named_set_aside_and_passed_over(tmp_path, capsys, name, damage):
    good, bad = make(tmp_path, 1), make(tmp_path, 2)
    path = bad / name
    content = path.read_bytes()
    match damage:
        case "missing":
            path.unlink()
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "longer":
            path.write_bytes(content + b"x")
        case "first bit":
            flip(path, 0)
        case "last bit":
            flip(path, len(content) - 2)
    found = newest_good(tmp_path)
    assert found is not None and found[0] == good
    message = capsys.readouterr().err
    assert str(path) in message and "damaged-checkpoint-2" in message
    assert (tmp_path / "damaged-checkpoint-2").is_dir() and not bad.exists()


def test_every_bit_of_a_manifest_counts(tmp_path):
    """A flipped bit makes it unreadable or another content, both of which are seen."""
    path = make(tmp_path, 1) / MANIFEST
    content = path.read_bytes()
    before = json.loads(content)
    unseen = []
    for byte in range(len(content)):
        for bit in range(8):
            flip(path, byte, bit)
            try:
                verify(path.parent)
                if json.loads(path.read_bytes()) != before:
                    unseen.append((byte, bit))
            except InputError:
                pass
            path.write_bytes(content)
    assert unseen == []


def test_when_none_is_good_it_stops_and_goes_on_stopping(tmp_path):
    for step in (1, 2):
        flip(make(tmp_path, step) / "model.safetensors", 3)
    for _ in range(2):
        with pytest.raises(InputError, match="no good checkpoint is left, only damaged-checkpoint-1, damaged-ch"):
            newest_good(tmp_path)
    assert newest_good(tmp_path / "new") is None


def test_a_second_damaged_one_of_the_same_step_finds_a_name(tmp_path):
    make(tmp_path, 1)
    for _ in range(3):
        flip(make(tmp_path, 2) / "model.safetensors", 3)
        newest_good(tmp_path)
    assert len(list(tmp_path.glob("damaged-checkpoint-2*"))) == 3


def test_order_is_that_of_numbers(tmp_path):
    for step in (9, 100, 20):
        make(tmp_path, step)
    (tmp_path / "checkpoint-200").write_text("a file")
    (tmp_path / "checkpoint-best").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-100", "checkpoint-20", "checkpoint-9"]


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, [5, 4, 3, 2, 1]),
        (2, None, [5, 4]),
        (1, None, [5]),
        (2, 1, [5, 1]),
        (3, 1, [5, 4, 1]),
        (1, 2, [5, 2]),
    ],
)
def test_rotation_keeps_the_newest_and_the_best(tmp_path, limit, best, left):
    for step in range(1, 6):
        make(tmp_path, step)
    rotate(tmp_path, limit, f"elsewhere/checkpoint-{best}" if best else None)
    assert [path.name for path in checkpoints(tmp_path)] == [f"checkpoint-{step}" for step in left]
    assert len(list(tmp_path.iterdir())) == len(left)


def test_what_a_killed_run_left_is_swept_away(tmp_path):
    make(tmp_path, 1)
    for name in (".incoming-checkpoint-2", ".deleting-checkpoint-0"):
        (tmp_path / name).mkdir()
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
