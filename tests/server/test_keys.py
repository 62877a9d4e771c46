"""API keys: made, kept as hashes, found again."""

import hashlib
import hmac
import re

import pytest
from click.testing import CliRunner

from arrowembed.cli.app import app
from arrowembed.errors import InvalidArgumentError
from arrowembed.server.security import keys as module
from arrowembed.server.security.keys import ApiKeys, new_key, read_keys


def test_a_new_key_is_found_and_no_other():
    key, kept = new_key("web", ["embed", "search"])
    other, kept_too = new_key("batch", ["admin"])
    keys = ApiKeys([kept, kept_too])
    assert keys.find(key) is kept.principal
    assert (kept.principal.name, kept.principal.kind) == ("web", "key")
    assert kept.principal.scopes == {"embed", "search"}
    assert keys.find(other).scopes == {"admin"}
    for wrong in ("", "ae_", key[:-1], key + "a", key.upper(), "\ud800", "schlüssel"):
        assert keys.find(wrong) is None


def test_a_key_has_256_random_bits_and_only_its_hash_is_kept():
    made = {new_key("web", ["embed"])[0] for _ in range(100)}
    assert len(made) == 100
    key, kept = new_key("web", ["embed"])
    # 43 digits of 6 bits hold 32 bytes.
    assert re.fullmatch(r"ae_[A-Za-z0-9_-]{43}", key)
    assert kept.entry() == f"web:embed:{hashlib.sha256(key.encode()).hexdigest()}"
    assert key not in repr(kept)


def test_all_keys_are_compared_in_constant_time_wherever_the_right_one_is(monkeypatch):
    made = [new_key(f"key-{i}", ["embed"]) for i in range(5)]
    keys = ApiKeys(kept for _, kept in made)
    compared = []

    def compare(a, b):
        compared.append((a, b))
        return hmac.compare_digest(a, b)

    monkeypatch.setattr(module, "hmac", type("hmac", (), {"compare_digest": compare}))
    for key, kept in made:
        compared.clear()
        assert keys.find(key) is kept.principal
        assert len(compared) == len(made)
    compared.clear()
    assert keys.find("ae_unknown") is None
    assert len(compared) == len(made)


def test_keys_are_read_from_lines_with_comments_or_from_one_line():
    made = [new_key("web", ["embed"]), new_key("ops", ["admin", "embed"])]
    entries = [kept.entry() for _, kept in made]
    lines = f"# of the web\n{entries[0]}   # until May\n\n{entries[1]}\n"
    assert read_keys(lines, "file") == [kept for _, kept in made]
    assert read_keys(" ".join(entries), "variable") == [kept for _, kept in made]
    assert entries[1].startswith("ops:embed,admin:")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("nonsense", "expected name:scopes:hash"),
        ("web:embed:abc", "expected name:scopes:hash"),
        ("web:embed:" + "A" * 64, "expected name:scopes:hash"),
        ("web:fly:" + "a" * 64, "the scopes must be some of embed, search, admin"),
        ("web::" + "a" * 64, "the scopes must be some of"),
        ("w/b:embed:" + "a" * 64, "the name must be 1 to 64 letters"),
        ("web:embed:ae_" + "a" * 43, "holds a key; only its hash belongs here"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said_without_repeating_it(entry, message):
    good = new_key("good", ["embed"])[1].entry()
    with pytest.raises(InvalidArgumentError, match=f"^keys.txt, line 2: {message}") as error:
        read_keys(f"{good}\n{entry}", "keys.txt")
    assert entry not in str(error.value)


def test_two_keys_with_one_name_or_two_names_for_one_key_are_refused():
    kept = new_key("web", ["embed"])[1]
    with pytest.raises(InvalidArgumentError, match="two are named 'web'"):
        ApiKeys([kept, new_key("web", ["embed"])[1]])
    same = read_keys(kept.entry().replace("web:", "other:"), "file")
    with pytest.raises(InvalidArgumentError, match="'other' is the same key as another"):
        ApiKeys([kept, *same])


def test_the_command_shows_a_key_once_and_prints_the_line_for_the_file():
    run = CliRunner().invoke(app, ["keys", "new", "web", "--scope", "embed", "--scope", "search"])
    assert run.exit_code == 0, run.output
    key = re.search(r"ae_\S+", run.stderr)[0]
    (kept,) = read_keys(run.stdout, "standard output")
    assert ApiKeys([kept]).find(key).scopes == {"embed", "search"}
    assert key not in run.stdout
    wrong = CliRunner().invoke(app, ["keys", "new", "a b"])
    assert wrong.exit_code == 1
    assert "error: API key: the name must be 1 to 64 letters" in wrong.stderr
