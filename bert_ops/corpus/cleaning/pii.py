"""Step ``pii``: numbers and addresses that identify a person are replaced by fixed tokens.

Masked are only forms that can be told from other numbers by their own structure, so that dates, amounts, ISBNs and
other long numbers stay:

* ``id_number``: resident identity numbers of the People's Republic of China, 18 characters with an existing province,
  a possible date of birth and the right check character (GB 11643-1999; ISO 7064, MOD 11-2). The 15 digits used before
  1999 have no check digit and are left alone.
* ``bank_card``: 13 to 19 digits with an issuer's prefix and length and the right check digit (ISO/IEC 7812-1, annex B:
  Luhn), written together or in groups of four.
* ``phone``: Chinese mobile numbers (1[3-9], 11 digits), landlines with area code, 400/800 numbers, numbers with a
  country code after ``+`` or ``00`` (ITU-T E.164: at most 15 digits), and North American 3-3-4 groups.
* ``email``: addr-spec of RFC 5322 without quoted local parts and comments.
* ``ip_address``: IPv4 in dotted decimals of which one has three digits (prices and versions have not), IPv6 with at
  least three colons.

What this cannot find: names, postal addresses, numbers written in Han numerals, and numbers split by other text.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable, Mapping

from bert_ops.corpus.cleaning.alignment import substitute
from bert_ops.corpus.cleaning.params import Pii
from bert_ops.corpus.records import Draft

_NO_DIGIT_BEFORE = r"(?<![0-9A-Za-z])(?<![0-9][.-])"
_NO_DIGIT_BEHIND = r"(?![0-9A-Za-z])(?![.-][0-9])"
#: Nothing is masked in a text without this.
_ANY = re.compile(r"[0-9][0-9 ().-]{5,}[0-9]|@|:[0-9A-Fa-f]{0,4}:")

#: GB/T 2260: first two digits of the code of a province, of Taiwan (71, 83), Hong Kong (81) and Macao (82).
_PROVINCES = frozenset(
    "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83".split()  # noqa: SIM905
)
_ID_WEIGHTS = tuple(pow(2, 17 - place, 11) for place in range(17))
_ID_CHECKS = "10X98765432"

#: Prefixes of issuers with the lengths of their numbers (ISO/IEC 7812; UnionPay cards begin with 62).
_ISSUERS = (
    (re.compile(r"62"), (16, 17, 18, 19)),
    (re.compile(r"4"), (13, 16, 19)),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"35(?:2[89]|[3-8])|6011|64[4-9]|65|60|9558"), (16, 19)),
    (re.compile(r"30[0-5]|36|38"), (14,)),
)

_LANDLINE = r"0(?:10|2[0-57-9]|[3-9][0-9]{2})"
_PHONE = "|".join(
    [
        # mobile
        r"(?:(?:\+|00)86[ -]?|\(\+?86\) ?|86-)?1[3-9][0-9](?:[0-9]{8}|([ -])[0-9]{4}\1[0-9]{4})",
        # landline with area code; written together only with the full eight or seven digits
        rf"(?:(?:\+|00)86[ -]?)?(?:\({_LANDLINE}\) ?|{_LANDLINE}(?:-| |--)?)[2-8][0-9]{{6,7}}(?:(?:-|转)[0-9]{{1,5}})?",
        r"\+86[ -]?(?:10|2[0-57-9]|[3-9][0-9]{2})[ -]?[2-8][0-9]{6,7}",
        r"[48]00(?:-[0-9]{3}-?[0-9]{4}|-[0-9]{4}-?[0-9]{3}|[ -][0-9]{7})",
        # country code, then groups
        r"\+[1-9][0-9]{0,2}(?:[ .-]?\([0-9]{1,4}\))?(?:[ .-]?[0-9]{2,4}){2,4}",
        r"(?:\+?1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[.-])[2-9][0-9]{2}[.-][0-9]{4}",
    ]
)

_PATTERNS: dict[Pii, re.Pattern[str]] = {
    "email": re.compile(
        r"(?<![\w.%+-])[A-Za-z0-9](?:[A-Za-z0-9_%+-]|\.(?=[A-Za-z0-9_%+-])){0,63}"
        r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,18}(?![A-Za-z0-9-])",
        re.ASCII,
    ),
    "id_number": re.compile(r"(?<![0-9A-Za-z])[1-8][0-9]{5}(?:18|19|20)[0-9]{9}[0-9Xx](?![0-9A-Za-z])"),
    "bank_card": re.compile(
        rf"{_NO_DIGIT_BEFORE}[2-69](?:[0-9]{{12,18}}|"
        rf"[0-9]{{3}}([ -])[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{1,4}}(?:\1[0-9]{{1,3}})?){_NO_DIGIT_BEHIND}"
    ),
    "phone": re.compile(rf"(?:{_NO_DIGIT_BEFORE}(?<!\+)|(?<![0-9A-Za-z+])(?=\+))(?:{_PHONE}){_NO_DIGIT_BEHIND}"),
    "ip_address": re.compile(
        r"(?<![0-9A-Za-z.])(?:(?<![0-9]:)[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
        r"|(?<!:)[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){3,7})(?![0-9A-Za-z:]|\.[0-9])"
    ),
}


def pii_step(*, tokens: Mapping[Pii, str]) -> Callable[[Draft], None]:
    """Return the step that masks what identifies a person.

    Args:
        tokens: what replaces each kind that is to be masked.

    """
    order: tuple[Pii, ...] = ("email", "id_number", "bank_card", "phone", "ip_address")
    kinds = [(kind, _PATTERNS[kind], _masking(_CHECKS[kind], tokens[kind])) for kind in order if kind in tokens]

    def mask(draft: Draft) -> None:
        if not _ANY.search(draft.text):
            return
        for kind, pattern, replace in kinds:
            if kind != "email" or "@" in draft.text:
                substitute(draft, pattern, replace)

    return mask


def _masking(check: Callable[[str], bool], token: str) -> Callable[[re.Match[str]], str]:
    return lambda match: token if check(match.group()) else match.group()


def is_id_number(number: str) -> bool:
    """Say whether 18 characters are an identity number: province, date of birth and check character (GB 11643)."""
    if number[:2] not in _PROVINCES:
        return False
    try:
        datetime.date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(weight * int(digit) for weight, digit in zip(_ID_WEIGHTS, number[:17], strict=True))
    return _ID_CHECKS[total % 11] == number[17].upper()


def is_bank_card(number: str) -> bool:
    """Say whether digits, perhaps in groups, have an issuer's prefix, its length and the right check digit (Luhn)."""
    digits = [int(character) for character in number if character.isdigit()]
    plain = "".join(map(str, digits))
    if not any(prefix.match(plain) and len(plain) in lengths for prefix, lengths in _ISSUERS):
        return False
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return len(set(plain)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_phone(number: str) -> bool:
    return sum(map(str.isdigit, number)) <= 18 and len(set(filter(str.isdigit, number))) > 1


def _is_ip_address(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    if "." in address:
        return max(map(len, address.split("."))) == 3
    return any(character.isdigit() for character in address)


_CHECKS: dict[Pii, Callable[[str], bool]] = {
    "email": lambda _: True,
    "id_number": is_id_number,
    "bank_card": is_bank_card,
    "phone": _is_phone,
    "ip_address": _is_ip_address,
}
