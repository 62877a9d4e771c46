"""Texts that differ in language, length, script and tidiness."""

# ruff: noqa: RUF001 - letters that look like others are the point

_PARAGRAPH = (
    "The reading room opened at nine, and by a quarter past every seat by the windows was taken. "
    "Students spread maps over two desks at once, the librarian pretended not to see it, and "
    "somebody had again left the ladder standing in front of the dictionaries. "
)

TEXTS: tuple[str, ...] = (
    # Nothing, or nearly
    "",
    " ",
    "\n\t  \r\n",
    "a",
    ".",
    "?!",
    "\x00",
    "tab\tand\x07bell\x1b[0m",
    # Plain English
    "hello",
    "Hello, world!",
    "HELLO WORLD",
    "The weather is lovely today.",
    "It is so sunny outside!",
    "He drove to the stadium.",
    "How do I return an article that I bought last week?",
    "Returns are accepted within thirty days if the packaging is unopened.",
    "A man is playing a guitar on the stage while the crowd sings along.",
    "Not bad at all; in fact, it wasn't half as bad as they'd said it would be.",
    "Dr. Smith's 3rd visit cost $1,234.56 (incl. 7.5% VAT) on 2024-02-29 at 14:05:09.",
    "Buffalo buffalo Buffalo buffalo buffalo buffalo Buffalo buffalo.",
    # Other languages and scripts
    "Der Vertrag kann bis zum Ende des Monats gekündigt werden.",
    "Où se trouve la bibliothèque la plus proche, s'il vous plaît ?",
    "¿Cuánto cuesta un billete de ida y vuelta a Sevilla?",
    "A casa é pequena, mas o jardim é grande e cheio de árvores.",
    "Çocuklar bahçede oynuyor; İstanbul'da hava güneşli.",
    "Zażółć gęślą jaźń.",
    "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Xin chào, bạn có khỏe không? Tiếng Việt có nhiều dấu.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.",
    "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में समानता प्राप्त है।",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน",
    "人人生而自由，在尊严和权利上一律平等。",
    "すべての人間は、生まれながらにして自由である。カタカナとひらがな。",
    "모든 인간은 태어날 때부터 자유로우며 존엄하다.",
    "ყველა ადამიანი იბადება თავისუფალი.",
    "mixed 語言 в одном предложении with العربية inside",
    # Unicode that is easy to get wrong
    "cafe\u0301 against café",
    "ﬁne ﬂuﬀy ligatures and ① ² ½ Ⅷ",
    "ｆｕｌｌ ｗｉｄｔｈ",
    "zero\u200bwidth\u200djoiner\ufeffs and soft\u00adhyphens",
    "no\u00a0break\u2003em\u3000ideographic spaces",
    "ẞ ß ſ İ ı K Å",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍a̴̵̜̰͔ͫ͗͢l̠ͨͧͩ͘g̴̩̣͍̎o",
    "😀 👍🏽 👩‍👩‍👧‍👦 🇺🇳 ❤️",
    "𝕞𝕒𝕥𝕙 𝔣𝔯𝔞𝔨𝔱𝔲𝔯 𐍈 𒀀",
    "\U0010ffff \ue000 \ufffd",
    # Code, markup and other strings
    "def mean(values: list[float]) -> float:\n    return sum(values) / len(values)\n",
    "SELECT name, COUNT(*) FROM orders WHERE total >= 10 GROUP BY name;",
    '{"id": 17, "tags": ["a", "b"], "nested": {"ok": null}}',
    "<p class='x'>Text &amp; <b>markup</b></p>",
    "https://example.org/path/page.html?query=1&lang=en#top user.name+tag@example.org",
    "C:\\Program Files\\x /usr/local/bin ~/.config snake_case CamelCase kebab-case",
    "E = mc², ∑ᵢ xᵢ ≤ ∞, α→β, 10⁻³ m·s⁻¹",
    "[CLS] special [SEP] tokens [MASK] in [PAD] text [UNK]",
    "0123456789 " * 6,
    "supercalifragilisticexpialidocious" * 4,
    "x" * 300,
    # Towards and beyond the length limit
    _PARAGRAPH,
    _PARAGRAPH * 3,
    _PARAGRAPH * 12,
    "word " * 510,
    "人" * 700,
)
