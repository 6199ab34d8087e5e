"""Tokenizer folders from elsewhere: read to the ids of transformers, and written so that it gives these ids again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from bert_ops.errors import ArtifactError
from bert_ops.tokenizer import wordpiece
from bert_ops.tokenizer.wordpiece import FILES, SpecialIds

transformers = pytest.importorskip("transformers")

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROLES = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"]
OTHER = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZéèüßı0123456789.,!?-()[]<>/京北大学我们喜欢的"
WORDS = [
    "the",
    "old",
    "Old",
    "city",
    "café",
    "cafe",
    "##s",
    "##ing",
    "##ity",
    "北京",
    "##大",
    "playing",
    "NEW",
    "u\u0308",
]
ORDINARY = list(dict.fromkeys([*LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS, "\u2028", "\u3000"]))


def lines(count: int = 300) -> list[str]:
    """Made-up texts with what splits tokenizers: case, accents, Chinese, odd spaces, control and unknown characters."""
    rng = random.Random(4)
    odd = [
        "É",
        "e\u0301",
        "İ",
        "\u200b",
        "\u3000",
        "𝔘",
        "☃",
        "\x00",
        "\t",
        "\u2028",
        "ﬁ",
        "the[MASK]city",
        "[SEP]",
        "A" * 101,
    ]
    pool = [*(word.removeprefix("##") for word in WORDS), *LETTERS, *odd]
    return ["", " ", *("".join(rng.choices([*pool, " ", " ", " "], k=rng.randint(1, 40))) for _ in range(count))]


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def vocab_folder(folder: Path, pieces: list[str], *, newline: str = "\n", **settings: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_bytes("".join(f"{piece}{newline}" for piece in pieces).encode())
    write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **settings})
    write(folder / "config.json", {"model_type": "bert", "type_vocab_size": 2})
    return folder


def as_json(folder: Path, change: Callable[[dict], object] = lambda content: None) -> Path:
    """Turn a folder with vocab.txt into one with tokenizer.json alone."""
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    (folder / "vocab.txt").unlink()
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    write(path, content)
    return folder


def check(folder: Path, out: Path, *, texts: list[str] | None = None) -> Tokenizer:
    """Ours, transformers' and transformers' over our copy encode alike, alone and in pairs."""
    texts = lines() if texts is None else texts
    pairs = list(zip(texts, reversed(texts), strict=True))
    out.mkdir()
    wordpiece.copy(folder, out, made_by=None)
    ours = wordpiece.load(folder, made_by=None)
    assert {path.name for path in out.iterdir()} == set(FILES)
    sides = [
        transformers.AutoTokenizer.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(out),
    ]
    alone, together = ours.encode_batch(texts), ours.encode_batch(pairs)
    assert len({len(e.ids) for e in alone}) > 5, "nothing is padded or cut by itself"
    for side in sides:
        assert side(texts)["input_ids"] == [e.ids for e in alone]
        of_pairs = side([a for a, _ in pairs], [b for _, b in pairs])
        assert of_pairs["input_ids"] == [e.ids for e in together]
        if "token_type_ids" in of_pairs:
            assert of_pairs["token_type_ids"] == [e.type_ids for e in together]
        ids = wordpiece.special_ids(ours)
        assert ids == (side.pad_token_id, side.unk_token_id, side.cls_token_id, side.sep_token_id, side.mask_token_id)
    again = wordpiece.load(out)
    assert [e.ids for e in again.encode_batch(texts)] == [e.ids for e in alone]
    wordpiece.copy(out, folder, made_by=None)
    assert all((folder / name).read_bytes() == (out / name).read_bytes() for name in FILES), "a copy's copy is the same"
    return ours


SETTINGS = [
    {"do_lower_case": True},
    {"do_lower_case": False},
    {"do_lower_case": True, "strip_accents": False},
    {"do_lower_case": False, "strip_accents": True},
    {"do_lower_case": False, "tokenize_chinese_chars": False},
    {"do_lower_case": True, "strip_accents": None, "model_max_length": 9, "truncation_side": "left"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("form", ["vocab.txt", "tokenizer.json", "both"])
def test_settings_are_followed(settings: dict, form: str, tmp_path: Path) -> None:
    folder = vocab_folder(tmp_path / "model", BERT + ORDINARY, **settings)
    if form != "vocab.txt":
        vocabulary = (folder / "vocab.txt").read_bytes()
        as_json(folder)
        if form == "both":
            (folder / "vocab.txt").write_bytes(vocabulary)
    check(folder, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "BertTokenizer"
    assert {key: written[key] for key in settings} == settings


@pytest.mark.parametrize("form", ["vocab.txt", "tokenizer.json"])
def test_special_tokens_stand_where_they_stand(form: str, tmp_path: Path) -> None:
    """As in BERT's own vocabularies, where only [PAD] is first; and here it is not either."""
    pieces = [*ORDINARY[:7], "[MASK]", *ORDINARY[7:90], "[SEP]", "[UNK]", *ORDINARY[90:], "[CLS]", "[PAD]"]
    folder = vocab_folder(tmp_path / "model", pieces, do_lower_case=True)
    if form == "tokenizer.json":
        as_json(folder)
    ours = check(folder, tmp_path / "out")
    assert wordpiece.special_ids(ours) == SpecialIds(*map(pieces.index, BERT))


@pytest.mark.parametrize("form", ["vocab.txt", "tokenizer.json", "special_tokens_map.json"])
def test_special_tokens_by_other_names(form: str, tmp_path: Path) -> None:
    pieces = [*ORDINARY[:7], *reversed(OTHER), *ORDINARY[7:]]
    names = dict(zip(ROLES, OTHER, strict=True))
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    names["mask_token"] = {"__type": "AddedToken", "content": "<mask>", **flags}
    folder = vocab_folder(tmp_path / "model", pieces, do_lower_case=False, **names)
    if form == "tokenizer.json":
        as_json(folder)
    elif form == "special_tokens_map.json":
        write(folder / "special_tokens_map.json", names)
        write(folder / "tokenizer_config.json", {"do_lower_case": False, "cls_token": "the"})
    # Texts that spell a special token out are the one thing that the new names change.
    texts = [line for line in lines() if "[" not in line and "<" not in line]
    ours = check(folder, tmp_path / "out", texts=texts)
    assert wordpiece.special_ids(ours) == SpecialIds(*map(pieces.index, OTHER))
    assert ours.encode("the <s> city").ids.count(pieces.index("<s>")) == 1


def test_what_pads_and_cuts_is_left(tmp_path: Path) -> None:
    def padded(content: dict) -> None:
        content["padding"] = {
            "strategy": {"Fixed": 12},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        }
        content["truncation"] = {"direction": "Right", "max_length": 12, "strategy": "LongestFirst", "stride": 0}

    folder = as_json(vocab_folder(tmp_path / "model", BERT + ORDINARY, do_lower_case=True), padded)
    check(folder, tmp_path / "out")


def test_the_settings_win_over_the_file(tmp_path: Path) -> None:
    """As in transformers: the file folds case, the settings say that it matters."""
    folder = as_json(vocab_folder(tmp_path / "model", BERT + ORDINARY, do_lower_case=True))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    write(folder / "tokenizer_config.json", settings | {"do_lower_case": False})
    ours = check(folder, tmp_path / "out")
    assert ours.encode("Old").tokens == ["[CLS]", "Old", "[SEP]"]


def test_without_settings_the_file_decides(tmp_path: Path) -> None:
    folder = as_json(vocab_folder(tmp_path / "model", BERT + ORDINARY, do_lower_case=False))
    (folder / "tokenizer_config.json").unlink()
    assert wordpiece.load(folder).encode("Old").tokens == ["[CLS]", "Old", "[SEP]"]


@pytest.mark.parametrize("cased", [True, False])
def test_without_any_settings_the_vocabulary_decides(cased: bool, tmp_path: Path, capsys) -> None:
    pieces = BERT + [piece for piece in ORDINARY if cased or piece == piece.lower()]
    folder = vocab_folder(tmp_path / "model", pieces)
    (folder / "tokenizer_config.json").unlink()
    tokens = wordpiece.load(folder, made_by=None).encode("Old").tokens
    assert tokens[1] == ("Old" if cased else "old")
    assert "does not say whether case matters" in capsys.readouterr().err


def test_lines_end_in_either_way_and_the_last_of_equals_counts(tmp_path: Path) -> None:
    pieces = [*BERT, *ORDINARY, "the"]
    folder = vocab_folder(tmp_path / "model", pieces, newline="\r\n", do_lower_case=True)
    ours = wordpiece.load(folder, made_by=None)
    assert ours.encode("the").ids[1] == len(pieces) - 1
    assert ours.token_to_id("\u2028") == pieces.index("\u2028")
    (tmp_path / "out").mkdir()
    wordpiece.copy(folder, tmp_path / "out")
    written = (tmp_path / "out" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    assert len(written) == len(pieces) + 1 and written[-2] == "the"
    assert written[pieces.index("the")] == f"[unused_id_{pieces.index('the')}]"


def added(content: str, *, special: bool) -> dict:
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    return {"content": content, "special": special, **flags}


def test_added_tokens_are_found_as_they_are_written(tmp_path: Path) -> None:
    # transformers takes pieces that are spaces for one and the same, and counts ids of added tokens from there.
    pieces = BERT + [piece for piece in ORDINARY if not piece.isspace()]
    tokens = {len(pieces): added("[E1]", special=True), len(pieces) + 1: added("COVID-19", special=False)}
    decoder = {str(number): token for number, token in tokens.items()}
    folder = vocab_folder(tmp_path / "model", [*pieces, "[E1]"], do_lower_case=True, added_tokens_decoder=decoder)
    texts = [*lines(60), "the [E1] COVID-19 city", "covid-19[E1]"]
    ours = check(folder, tmp_path / "out", texts=texts)
    assert ours.encode("COVID-19[E1]").tokens == ["[CLS]", "COVID-19", "[E1]", "[SEP]"]
    assert ours.decode(ours.encode("COVID-19[E1]").ids) == "COVID-19"


def test_added_tokens_of_older_folders(tmp_path: Path) -> None:
    """In added_tokens.json an ordinary token is meant in any case, as transformers 4 read it."""
    pieces = [*BERT, *ORDINARY, "[E1]"]
    folder = vocab_folder(tmp_path / "model", pieces, do_lower_case=True, additional_special_tokens=["[E1]", "[E2]"])
    write(folder / "added_tokens.json", {"covid-19": len(pieces)})
    ours = wordpiece.load(folder, made_by=None)
    assert ours.encode("Covid-19[E1]").tokens == ["[CLS]", "covid-19", "[E1]", "[SEP]"]
    assert ours.token_to_id("covid-19") == len(pieces)
    # No id and so no embedding belongs to it: it is text like any other.
    assert ours.token_to_id("[E2]") is None


def other_rules(pieces: list[str]) -> Tokenizer:
    """A WordPiece tokenizer whose texts are not cleaned and split as BERT's."""
    vocab = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]", max_input_chars_per_word=50))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    tokenizer.add_special_tokens(BERT)
    return tokenizer


def test_other_rules_of_splitting_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder / "config.json", {"model_type": "bert"})
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=other_rules(BERT + ORDINARY), **dict(zip(ROLES, BERT, strict=True))
    )
    fast.save_pretrained(folder)
    check(folder, tmp_path / "out")


def test_a_model_with_one_segment_is_given_none(tmp_path: Path) -> None:
    folder = vocab_folder(tmp_path / "model", BERT + ORDINARY, do_lower_case=True)
    write(folder / "config.json", {"model_type": "bert", "type_vocab_size": 1})
    check(folder, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert set(theirs("the", "city")) == {"input_ids", "attention_mask"}


def test_what_the_model_reads_is_written(tmp_path: Path) -> None:
    settings = {"model_max_length": 512, "truncation_side": "left"}
    folder = vocab_folder(tmp_path / "model", BERT + ORDINARY, do_lower_case=True, **settings)
    for truncation in ("head", "tail"):
        out = tmp_path / truncation
        out.mkdir()
        wordpiece.copy(folder, out, max_length=7, truncation=truncation, made_by=None)
        ours = wordpiece.load(out)
        ours.enable_truncation(7, direction="left" if truncation == "tail" else "right")
        theirs = transformers.AutoTokenizer.from_pretrained(out)
        assert theirs(lines(50), truncation=True)["input_ids"] == [e.ids for e in ours.encode_batch(lines(50))]
        assert theirs.model_max_length == 7


class TestRefused:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return as_json(vocab_folder(tmp_path / "model", BERT + ORDINARY, do_lower_case=True))

    def refuse(self, folder: Path, message: str) -> None:
        with pytest.raises(ArtifactError, match=message):
            wordpiece.load(folder, made_by=None)

    def change(self, folder: Path, change: Callable[[dict], object]) -> None:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        write(path, content)

    def test_no_vocabulary(self, tmp_path: Path) -> None:
        self.refuse(tmp_path, r"tokenizer\.json does not exist")

    @pytest.mark.parametrize("kind", ["BPE", "Unigram", "WordLevel", None])
    def test_another_kind(self, folder: Path, kind: str | None) -> None:
        def other(content: dict) -> None:
            content["model"] = {"type": kind, "vocab": {}}

        self.change(folder, other)
        self.refuse(folder, f"a tokenizer of kind {kind}")

    @pytest.mark.parametrize("kind", ["BertJapaneseTokenizer", "RobertaTokenizerFast", "MyTokenizer"])
    def test_rules_that_are_code(self, folder: Path, kind: str) -> None:
        write(folder / "tokenizer_config.json", {"tokenizer_class": kind})
        self.refuse(folder, f"tokenizer_class is '{kind}'")

    @pytest.mark.parametrize("token", BERT)
    def test_a_special_token_is_missing(self, tmp_path: Path, token: str) -> None:
        pieces = [piece for piece in BERT if piece != token] + ORDINARY
        folder = vocab_folder(tmp_path / "model", pieces, do_lower_case=True)
        self.refuse(folder, rf"vocab\.txt lacks \{token}")

    def test_one_token_for_two_roles(self, folder: Path) -> None:
        write(folder / "tokenizer_config.json", {"sep_token": "the", "cls_token": "the"})
        self.change(folder, lambda content: [content["model"]["vocab"].pop(name) for name in ("[CLS]", "[SEP]")])
        self.change(folder, lambda content: content.update(added_tokens=[]))
        self.refuse(folder, "one token for several")

    def test_a_piece_has_the_name_of_a_special_token(self, folder: Path) -> None:
        write(folder / "tokenizer_config.json", {"sep_token": "the"})
        self.refuse(folder, r"has \[SEP\] beside the, which is its sep_token")

    def test_ids_repeat(self, folder: Path) -> None:
        self.change(folder, lambda content: content["model"]["vocab"].update(the=9))
        self.refuse(folder, "one id twice")

    @pytest.mark.parametrize("vocab", [{"a": "1"}, {"a": -1}, ["a"], None])
    def test_ids_are_no_numbers(self, folder: Path, vocab: object) -> None:
        self.change(folder, lambda content: content["model"].update(vocab=vocab))
        self.refuse(folder, "is damaged")

    @pytest.mark.parametrize("number", [{}, "0", -1, float("inf"), 3])
    def test_added_tokens_have_other_ids(self, folder: Path, number: object) -> None:
        self.change(folder, lambda content: content["added_tokens"][0].update(id=number))
        self.refuse(folder, "is damaged")

    def test_texts_are_not_framed(self, folder: Path) -> None:
        def bare(content: dict) -> None:
            content["post_processor"]["single"] = [{"Sequence": {"id": "A", "type_id": 0}}]

        self.change(folder, bare)
        write(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
        self.refuse(folder, "frames texts as")

    def test_a_vocabulary_that_is_not_utf8(self, tmp_path: Path) -> None:
        folder = vocab_folder(tmp_path / "model", BERT + ORDINARY)
        (folder / "vocab.txt").write_bytes("北京\n".encode("gb18030"))
        self.refuse(folder, r"vocab\.txt is damaged")

    @pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
    @pytest.mark.parametrize("text", ["{", "[]", "\x00"])
    def test_damaged_files(self, folder: Path, name: str, text: str) -> None:
        (folder / name).write_text(text)
        self.refuse(folder, rf"{name.replace('.', '[.]')} is damaged")
