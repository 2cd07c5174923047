"""Templates that show words, of the large editions that are not English: what they show, each under its local name.

As documented on the pages of these templates. Names that two languages share stand in `templates.py`.
"""

from collections.abc import Callable

from data_prep.wikipedia.marks import REMOVED
from data_prep.wikipedia.templates import (
    Arguments,
    around,
    constant,
    joined,
    nothing,
    nth,
    quotation,
    spaced,
    superscript,
)

_MONTHS = {
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "pt": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    "ru": "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
}


def _date(language: str, between: str = " ", first: str = "1") -> Callable[[Arguments], str]:
    """Day, month (a number or a name) and year, the next words after them as they are written."""
    months = _MONTHS[language].split()

    def show(arguments: Arguments) -> str:
        day, month, *rest = [*arguments.positional, "", ""][: max(2, len(arguments.positional))]
        if len(day) == 4 and rest and len(rest[0]) <= 2:
            day, rest = rest[0], [day, *rest[1:]]
        if month.isdigit() and 1 <= int(month) <= 12:
            month = months[int(month) - 1]
        elif month.isdigit():  # a year alone, or a date as one word
            return spaced(arguments)
        day = first if day == "1" else day
        shown = between.join(filter(None, (day, month, *rest[:1])))
        return " ".join(filter(None, (shown, *rest[1:]))) or REMOVED

    return show


def _century(arguments: Arguments) -> str:
    """French {{s|XIX|e}}; Russian {{s|text}} keeps its text on a line."""
    words = arguments.positional
    return "".join(words[:2]) + (" siècle" if len(words) > 1 and words[1] in ("e", "er") else "") or REMOVED


def _centuries(arguments: Arguments) -> str:
    """{{s2|XVIII|e|XIX|e}}, {{sp|XVIII|e|au|XIX|e}}."""
    words = arguments.positional
    if len(words) < 4:
        return joined(arguments)
    between = words[2] if len(words) > 4 else "et"
    last = words[3:5] if len(words) > 4 else words[2:4]
    return f"{words[0]}{words[1]} {between} {''.join(last)} siècle{'s' if between == 'et' else ''}"


def _spanish_century(arguments: Arguments) -> str:
    return ("siglo " if arguments.get("3").lower() == "s" else "") + arguments.get("1") or REMOVED


def _japanese_date(first: int) -> Callable[[Arguments], str]:
    def show(arguments: Arguments) -> str:
        parts = arguments.positional[first : first + 3]
        return "".join(part + sign for part, sign in zip(parts, "年月日", strict=False) if part) or REMOVED

    return show


def _reading(arguments: Arguments) -> str:
    word, kana = arguments.get("1"), arguments.get("2")
    return f"{word}（{kana}）" if kana else word or REMOVED


def _japanese_year(arguments: Arguments) -> str:
    year = arguments.get("1")
    return f"{year}年" if year.isdigit() else year or REMOVED


def _lifetime(arguments: Arguments) -> str:
    """Chinese {{bd|1950年|1月2日|2000年|3月4日}}."""
    words = [*arguments.positional[:4], "", "", "", ""]
    return f"{words[0]}{words[1]}－{words[2]}{words[3]}" if any(words) else REMOVED


GROUPS: list[tuple[str, Callable[[Arguments], str]]] = [
    # French
    ("lien, lien interlangue, lien à traduire", nth("texte", "fr", "1", "trad")),
    (
        "date, date-, date de naissance, date de naissance-, date de décès, date de décès-, date républicaine",
        _date("fr", first="1er"),
    ),
    ("siècle, s", _century),
    ("s-, s mini, s mini-", joined),
    ("s2, sp, sap", _centuries),
    ("-s", lambda arguments: f"{joined(arguments)} siècle av. J.-C."),
    ("av jc, av. j.-c., avjc", constant("av. J.-C.")),
    ("ap jc, ap. j.-c., apjc", constant("apr. J.-C.")),
    ("heure, heures", lambda arguments: f"{arguments.get('1')} h {arguments.get('2')}".strip()),
    ("citation, citation nécessaire", nth("1")),
    ("citation étrangère", nth("2", "1")),
    ("référence nécessaire, refnec, référence souhaitée, refsou, passage à actualiser", nth("1")),
    ("guil, guillemets", around("« ", " »")),
    ("incise", around("– ", " –")),
    ("abréviation, abr, abréviation discrète, abrd, petites capitales, pc, nobr romains, petit, grand", nth("1")),
    ("exp", lambda arguments: superscript(arguments.get("1") or "e")),
    ("ind", nth("1")),
    ("langue, texte arabe, texte grec, étranger", nth("texte", "2")),
    ("n°, numéro", lambda arguments: f"n° {arguments.get('1')}"),
    *((name.lower(), constant(name)) for name in ("1er", "1re", "Ier", "Ire", "M.", "Mme", "Mlle", "Dr", "Mgr")),
    *((f"{number}e", constant(f"{number}e")) for number in range(2, 101)),
    ("p., p", lambda arguments: f"p. {arguments.get('1')}".strip()),
    ("note, sfn, harvsp, référence harvard, api, pron, drapeau, refins, à sourcer, quand, qui, précision", nothing),
    # Numbers with a unit
    ("unité, unidad, nombre, nb, num, число, unit, unité/2, fmtn, m+j, число с разделителями", spaced),
    ("m", lambda arguments: f"{arguments.get('1')} {arguments.get('u', 'ul')}".strip()),
    # Russian, Ukrainian and others in Cyrillic letters: article that is missing here
    (
        "нп, нп1, нп2, нп3, нп4, нп5, не переведено, не переведено 2, не переведено 3, не переведено 4, "
        "не переведено 5, не перекладено, iw, iw2, iw3, iw5, пп, няма",
        nth("текст", "2", "надо", "треба", "1", "есть"),
    ),
    ("дата, ш:дата, юлианская дата, юлдата, oldstyledate-ru", _date("ru")),
    ("comment, подсказка, абр, аббр, флагификация, капитель, nobr, нобр, нп-текст, рамка", nth("1")),
    ("тире", constant(" — ")),
    ("нет аи, нет аи 2, уточнить, нет источника, источник?, где, когда, кто, ref-en, ref-ru, ref-de, флаг", nothing),
    # Japanese
    ("仮リンク, 仮リンクnote", nth("label", "1")),
    ("読み仮名, 読み仮名 ruby不使用, ふりがな, ルビ, ruby, ruby-ja", _reading),
    ("by", _japanese_year),
    ("生年月日と年齢, 生年月日, 年月日, 没年月日, 死亡年月日, 開始日", _japanese_date(0)),
    ("死亡年月日と没年齢, 没年月日と年齢", _japanese_date(3)),
    (
        "補助漢字フォント, cp932フォント, jis2004フォント, jis90フォント, 拡張漢字, 拡張領域漢字, 僻字, 要出典範囲, "
        "要検証範囲, 独自研究範囲, 縦書き, 繁体字, 簡体字, 繁體字, 簡化字",
        nth("1"),
    ),
    ("要出典, 要検証, 要ページ番号, 出典無効, いつ範囲, 誰, どこ, en, de icon, ja icon, 地図", nothing),
    # Chinese
    (
        "link-en, link-ja, link-de, link-fr, link-es, link-ko, link-ru, link-it, link-pt, link-nl, link-pl, link-sv, "
        "link-uk, link-vi, link-ar, link-he, le, lj, ilf, ill-zh",
        nth("3", "1"),
    ),
    ("tsl, translink, translate link, ilh, internal link helper, internallinkhelper", nth("4", "d", "3", "zh", "1")),
    ("bd", _lifetime),
    ("专名, 專名, 書名, pua, 字, zy, 注音", nth("1")),
    ("notea, noteta, noteta-lite, fact2, 來源請求, 来源请求, 谁, 誰?", nothing),
    # Spanish, Portuguese, Italian
    ("enlace interlingüístico, enlace no existente, ligação interlíngua, ilc, link interlíngua", nth("3", "1")),
    (
        "fecha, fecha de inicio, fecha de nacimiento, fecha de nacimiento y edad, fecha de fallecimiento, "
        "fecha de defunción",
        _date("es", " de "),
    ),
    ("dtlink, dni, nascimento, data de nascimento e idade, morte, falecimento, data", _date("pt", " de ")),
    ("siglo", _spanish_century),
    ("séc, século", around("século ")),
    ("ac, a. c., a.c., adc, adc.", constant("a. C.")),
    ("dc, d. c., d.c.", constant("d. C.")),
    ("versalita, versalitas, maiuscoletto, esd, bandera2, definición, abreviatura, senza fonte, cn2", nth("1")),
    ("carece de fontes2, citazione necessaria, sin referencias frase", nth("1")),
    ("cita requerida, demostrar, carece de fontes, quem, harvnp, listaref, bandera, bandiera, bandeira", nothing),
    # Polish, Dutch, Czech, Swedish
    ("w języku, cizojazyčně, språk, taal, dil, limba", nth("2")),
    ("fakt, feit, bron?, bez zdroje, källa behövs", nth("1")),
    ("odn, flaga", nothing),
    ("citat, citaat, اقتباس, цитата, zitat-en", quotation),
    # Arabic
    ("وإو, وصلة إنترويكي", nth("نص", "عر", "1", "تر")),
    ("إنج, فر, عب, رمز لغة", nth("1")),
    ("لغ", nth("2")),
    ("بحاجة لمصدر, بحاجة لدقة أكثر, هامش", nothing),
]
