from __future__ import annotations

import builtins
from typing import Any

import pytest
from cleaning_params import cleaning_params

from bert_ops.corpus.cleaning import chinese, language
from bert_ops.corpus.cleaning.chinese import chinese_step
from bert_ops.corpus.cleaning.language import language_step
from bert_ops.corpus.records import Draft, Unfit
from bert_ops.errors import InputError

#: (language, a text of it); the first sentence of the Universal Declaration of Human Rights where there is one.
PLANTED = [
    ("zh", "人人生而自由,在尊严和权利上一律平等。"),
    ("zh", "人人生而自由,在尊嚴和權利上一律平等。"),
    ("zh", "用iPhone打电话"),
    ("zh", "好"),
    ("zh", "日文里「の」的用法很多,这本书讲得很清楚"),
    ("zh", "我的CPU是Intel Core 2 Duo T7300的,内存2G,玩游戏没有问题"),
    ("ja", "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"),
    ("ja", "東京都知事選挙の結果について"),
    ("ko", "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다."),
    ("en", "All human beings are born free and equal in dignity and rights."),
    ("en", "The position of this hotel is very bad."),
    ("en", "宾馆反馈: Thank you for your problem, we will change the shower and hope you come here again"),
    ("de", "Alle Menschen sind frei und gleich an Würde und Rechten geboren."),
    ("fr", "Tous les êtres humains naissent libres et égaux en dignité et en droits."),
    ("es", "Todos los seres humanos nacen libres e iguales en dignidad y derechos."),
    ("it", "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti."),
    ("pt", "Todos os seres humanos nascem livres e iguais em dignidade e em direitos."),
    ("nl", "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren."),
    ("sv", "Alla människor är födda fria och lika i värde och rättigheter."),
    ("pl", "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw."),
    ("cs", "Všichni lidé se rodí svobodní a sobě rovní co do důstojnosti a práv."),
    ("fi", "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan."),
    ("hu", "Minden emberi lény szabadon születik és egyenlő méltósága és joga van."),
    ("tr", "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar."),
    ("vi", "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi."),
    ("id", "Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang sama."),
    ("ru", "Все люди рождаются свободными и равными в своем достоинстве и правах."),
    ("uk", "Всі люди народжуються вільними і рівними у своїй гідності та правах."),
    ("bg", "Всички хора се раждат свободни и равни по достойнство и права."),
    ("ar", "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق."),
    ("fa", "تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم برابرند."),
    ("hi", "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।"),
    ("he", "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם."),
    ("el", "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα."),
    ("th", "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ"),
    ("ka", "ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით."),
    ("hy", "Բոլոր մարդիկ ծնվում են ազատ ու հավասար իրենց արժանապատվությամբ ու իրավունքներով։"),
    ("ta", "மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்."),
    (None, "13800138000"),
    (None, "!!!"),
    (None, ""),
    (None, "ok"),
    (None, "ᚠᛇᚻ ᛒᛦᚦ ᚠᚱᚩᚠᚢᚱ"),
]


def identified(text: str, **changes: Any) -> str | None:
    draft = Draft(text)
    language_step(cleaning_params(**{f"language__{key}": value for key, value in changes.items()}).language)(draft)
    assert draft.text == text
    return draft.language


@pytest.mark.parametrize(("expected", "text"), PLANTED)
def test_languages_are_told(expected: str | None, text: str) -> None:
    assert identified(text) == expected


def test_scripts_of_one_language_need_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("the model was asked")

    monkeypatch.setattr(language, "_model", refuse)
    for expected, text in PLANTED:
        if expected in ("zh", "ja", "ko", "el", "th", "ka", "hy", "ta"):
            assert identified(text) == expected
    with pytest.raises(AssertionError, match="asked"):
        identified("All human beings are born free")


def test_only_allowed_languages_pass() -> None:
    assert identified("人人生而自由", allowed=["zh", "en"]) == "zh"
    with pytest.raises(Unfit) as caught:
        identified("Alle Menschen sind frei und gleich", allowed=["zh", "en"])
    assert (caught.value.reason, caught.value.detail) == ("language", "de; allowed: en, zh")
    assert identified("123", allowed=["zh"]) is None
    with pytest.raises(Unfit) as caught:
        identified("123", allowed=["zh"], undetermined="reject")
    assert caught.value.reason == "language_unknown"


def test_the_model_is_believed_only_if_it_is_sure_and_has_enough_to_read() -> None:
    text = "All human beings are born free and equal in dignity."
    assert identified(text, min_confidence=1.0, candidates=["en", "de", "nl"]) in (None, "en")
    assert identified("hotel piscina", min_confidence=0.99) is None
    assert identified(text, min_characters=100) is None
    # Only the start of a text is looked at.
    assert identified("人人生而自由" + text * 10, sample_characters=6) == "zh"
    assert identified("人人生而自由" + text * 10) == "en"


@pytest.mark.parametrize(("key", "value"), [("candidates", ["xx"]), ("allowed", ["zh-cn"]), ("allowed", [])])
def test_unknown_languages_are_refused(key: str, value: list[str]) -> None:
    with pytest.raises(ValueError, match=key):
        cleaning_params(**{f"language__{key}": value})


def test_a_missing_package_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def blocked(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] in ("py3langid", "opencc"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest, **named)

    language._model.cache_clear()
    chinese._converter.cache_clear()
    monkeypatch.setattr(builtins, "__import__", blocked)
    try:
        with pytest.raises(InputError, match=r"ingest\.clean\.language.*py3langid"):
            identified("All human beings are born free")
        with pytest.raises(InputError, match=r"ingest\.clean\.chinese.*OpenCC"):
            chinese_step(conversion="t2s")
    finally:
        language._model.cache_clear()
        chinese._converter.cache_clear()


@pytest.mark.parametrize(
    ("conversion", "raw", "text"),
    [
        ("t2s", "漢語,乾隆皇帝後來乾了一杯", "汉语,乾隆皇帝后来干了一杯"),
        ("s2t", "头发发现,皇后后来", "頭髮發現,皇后後來"),
        ("tw2sp", "滑鼠和軟體", "鼠标和软件"),
        ("s2twp", "鼠标和软件", "滑鼠和軟體"),
        ("hk2s", "衞生", "卫生"),
        ("t2s", "plain ascii", "plain ascii"),
    ],
)
def test_converts_chinese(conversion: Any, raw: str, text: str) -> None:
    draft = Draft(raw)
    chinese_step(conversion=conversion)(draft)
    assert draft.text == text


def test_spans_and_words_follow_a_conversion() -> None:
    draft = Draft("他用計程車送程式設計師", spans=[(2, 5, "X")], word_starts=[0, 1, 2, 5, 6])
    chinese_step(conversion="tw2sp")(draft)
    assert draft.text == "他用出租车送程序员"
    assert draft.spans == [(2, 5, "X")]
    assert [draft.text[start:] for start in draft.word_starts or ()][-1] == "程序员"
    kept = Draft("漢語", word_starts=[0, 1], spans=[(0, 1, "X")])
    chinese_step(conversion="t2s")(kept)
    assert kept == Draft("汉语", word_starts=[0, 1], spans=[(0, 1, "X")])
