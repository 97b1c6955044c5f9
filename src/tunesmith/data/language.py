"""Scripts and languages: a script by its characters' names, a language by its script and its function words.

Function words are the most frequent words of any text, and few languages share many of them, so counting them tells
languages apart in texts of some ten words (Grefenstette 1995, Comparing two language identification schemes). A word
that several languages share counts for each in parts, a word of one letter half. A text with less than the weight of
one word, or in which a second language comes near the first, has no language here: nothing is guessed.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache

_WORDS = {
    "en": "a the of and to in is that it for was on are with as at be this have from or had by not but what all were "
    "we when your can there an which their if will how do does did why my me i you he she they would about been has "
    "more who its our am no so please need want get out up over his her two one some",
    "de": "wann wo wer warum "
    "der die und das ist nicht ein eine ich sie er es zu den mit von auf für dem sich im auch wie werden wird "
    "sind war hat haben aus einen einer einem bei nach oder wir kann mein meine wenn aber noch nur über vom zum "
    "zur als",
    "fr": "le la les de des et un une est que qui dans pour pas sur au aux avec ce cette il elle ils nous vous je du "
    "sont par plus ne se mon ma mes son sa ses mais ou comme être fait été leur même si tout",
    "es": "el la los las de y en que un una es por con no para se del al lo como más pero sus su está son mi me le ha "
    "cuando muy sin sobre también este esta hay yo fue todo ser si qué",
    "it": "il lo la gli le di e un una che è in per non con del della dei delle si da al sono come più ma anche nel "
    "nella questo questa ho ha mi mio mia se cosa perché essere sul alla",
    "pt": "o a os as de e um uma que é em para com não do da dos das se no na por mais como mas ao foi são seu sua "
    "está isso eu você ele ela meu minha ser também quando muito nos já",
    "nl": "de het een en van is in dat op te zijn met voor niet aan er maar om ook als dan bij nog naar wordt heeft ik "
    "je mijn hij ze wij kan wat deze dit door over uit worden die hoe",
    "sv": "och att det i en är som på för med av den inte ett jag har till de om var kan men så från vi min du ska "
    "eller när också efter sig hur han hon",
    "da": "og at det i en er som på for med af den ikke et jeg har til de om var kan men så fra vi min du skal eller "
    "når også efter sig hvordan han hun blev hvad",
    "pl": "i w na się nie z do to że jest o jak ale po co tak za od czy dla są był przez ten tym mnie już tylko być "
    "może mam jego ze które który",
    "tr": "ve bir bu da de için ile çok ne mi gibi daha var ben o ama olarak en kadar sonra değil nasıl her olan mı ya "
    "olduğu biz sen",
    "id": "yang dan di dari untuk dengan ini itu tidak ke pada adalah dalam saya akan ada bisa juga oleh atau kami "
    "karena apa sudah seorang bagaimana",
    "vi": "và của là có không được cho trong một với những các tôi đã này để khi người thì đó rất nhưng làm như ở",
    "ru": "когда который которую где чтобы есть был была можно "
    "и в не на что я с он как это по но они к из у за мы то же от так для было вы бы о его мне все только "
    "если или",
    "uk": "і в не на що я з він як це та але вони до у за ми то від так для було ви б про його мені всі тільки якщо "
    "або є",
    "bg": "и в не на че аз с той като това по но те до от за ние се да така беше вие би ще са е го само ако или ли със",
    "ar": "في من على إلى أن هذا هذه التي الذي عن مع ما لا كان هو هي لم أو كل قد بعد ذلك هل كيف لقد أنا",
    "fa": "و در به از که این را با است برای آن یک من هم تا بر می خود شود بود ما شما هستم چه",
}
_OF_SCRIPT = {"HANGUL": "ko", "CJK": "zh", "THAI": "th", "GREEK": "el", "HEBREW": "he", "DEVANAGARI": "hi",
              "ARMENIAN": "hy", "GEORGIAN": "ka", "BENGALI": "bn", "TAMIL": "ta"}  # fmt: skip
_KANA = ("HIRAGANA", "KATAKANA")
LANGUAGES = tuple(sorted({*_WORDS, *_OF_SCRIPT.values(), "ja"}))
_SETS = {code: frozenset(words.split()) for code, words in _WORDS.items()}
_OWNERS = {word: [code for code in _SETS if word in _SETS[code]] for word in {w for s in _SETS.values() for w in s}}
_TOKEN = re.compile(r"[^\W\d_]+")
_LEAST, _AHEAD = 0.9, 1.5  # weight of words, and how far ahead of the next language
_MOST = 2000  # characters that are looked at


@cache
def _script(character: str) -> str:
    return unicodedata.name(character, "UNKNOWN").split()[0]


def script_of(text: str) -> str | None:
    """Return the script that most letters of a text belong to.

    Args:
        text: any; its first 2,000 characters are read.
    Returns:
        As Unicode names it, for example "LATIN" or "CJK"; None without letters.
    Example:
        >>> script_of("hello"), script_of("你好"), script_of("42")
        ('LATIN', 'CJK', None)
    """
    text = text[:_MOST]
    if text.isascii():
        return "LATIN" if any(sign.isalpha() for sign in text) else None
    counts = Counter[str]()
    for sign, count in Counter(text).items():
        if sign.isalpha():
            counts[_script(sign)] += count
    if not counts:
        return None
    best = counts.most_common(1)[0][0]
    if best == "CJK" and sum(counts[name] for name in _KANA) > 0.1 * counts["CJK"]:
        return "HIRAGANA"
    return best


def language_of(text: str) -> str | None:
    """Tell the language of a text.

    Args:
        text: any; its first 2,000 characters are read.
    Returns:
        One of LANGUAGES; None where it cannot be told.
    Example:
        >>> language_of("where is the card that I ordered"), language_of("wo ist die Karte"), language_of("ok")
        ('en', 'de', None)
    """
    script = script_of(text)
    if script in _OF_SCRIPT:
        return _OF_SCRIPT[script]
    if script in _KANA:
        return "ja"
    scores: dict[str, float] = {}
    for word in _TOKEN.findall(text[:_MOST].lower()):
        owners = _OWNERS.get(word, ())
        for code in owners:
            scores[code] = scores.get(code, 0.0) + min(1.0, len(word) / 2) / len(owners)
    if not scores:
        return None
    best, second = sorted([*scores.values(), 0.0], reverse=True)[:2]
    return max(scores, key=scores.__getitem__) if best >= max(_LEAST, _AHEAD * second) else None
