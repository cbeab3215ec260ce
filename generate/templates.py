"""Prompts without a language model: plain sentences that vary by the clip's index, and texts made safe and plain."""

import hashlib
import math
import re
import unicodedata

LONGEST_PROMPT = 1000  #: characters.
LONGEST_NAME = 200  #: characters of a class name that go into a prompt.
JOINERS = "\u200c\u200d"  #: parts of words and of emoji, though they count as formatting.
DROPPED = ("Cc", "Cf", "Cs", "Co")  #: control, formatting, halves of characters, private ones.

# One list a slot. Their lengths have no common factor, so that by the Chinese remainder theorem their combinations
# come round only after the product of all lengths, although every slot moves on with every clip.
PEOPLE = (
    "a young woman", "an old man", "a teenage boy", "a middle-aged woman", "a tall man", "a little girl",
    "a grandmother", "a man with a beard", "a woman with short hair", "a student", "a person in a red jacket",
    "a man in a white shirt", "a woman in sports clothes", "a boy with glasses", "a person in a dark hoodie",
    "a woman with a ponytail",
)  # fmt: skip
PLACES = (
    "in a living room", "in a back garden", "in a park", "on a city street", "in a kitchen", "in a gym",
    "on a beach", "in a school yard", "in a workshop", "on a balcony", "in a large hall", "beside a lake",
    "in a garage", "in a bedroom", "on a meadow", "in a courtyard", "on a rooftop", "in front of a brick wall",
    "in a snowy field", "in a community centre", "at a campsite", "in an office", "on a farm", "in a hotel lobby",
    "on a parking lot", "in a forest clearing", "on a village square",
)  # fmt: skip
CAMERAS = (
    "filmed with a still camera", "filmed by hand with a phone", "seen from the side", "seen from the front",
    "in a wide shot", "in a medium shot", "in a close shot", "from a low angle", "from slightly above",
    "with the camera slowly moving in", "with the camera following",
)  # fmt: skip
LIGHTS = (
    "in soft daylight", "in bright sun", "under an overcast sky", "in warm evening light", "under fluorescent lamps",
    "in the light of a window", "in dim light",
)  # fmt: skip
QUALITIES = (
    "sharp picture", "slightly grainy picture", "plain amateur video", "muted colours", "natural colours",
)  # fmt: skip
SLOTS = (PEOPLE, PLACES, CAMERAS, LIGHTS, QUALITIES)
DIFFERENT = math.prod(map(len, SLOTS))  #: clips of a class before a template's prompt comes again.


def write_template(label: str, index: int, seed: int) -> str:
    """The built-in prompt of clip ``index`` of a class: the same one always, and another one for each index.

    >>> write_template("YoYo", 5, 0)
    'A student performing yo yo in a gym, in a close shot, in soft daylight, plain amateur video.'
    """
    digest = hashlib.blake2b(f"{seed}:{label}".encode("utf-8", "surrogatepass"), digest_size=4 * len(SLOTS)).digest()
    begins = [int.from_bytes(digest[place : place + 4], "big") for place in range(0, len(digest), 4)]
    who, where, *how = (slot[(begin + index) % len(slot)] for slot, begin in zip(SLOTS, begins, strict=True))
    return tidy(f"{who[0].upper()}{who[1:]} {doing(label)} {where}, {', '.join(how)}.")


def doing(label: str) -> str:
    """The class's words behind a person: ``playing guitar``, ``performing brush hair``."""
    words = in_words(label)
    return words if words.split(" ")[0].endswith("ing") else f"performing {words}"


def in_words(label: str) -> str:
    """A class name as words: ``ApplyEyeMakeup``, ``apply_eye_makeup`` -> ``apply eye makeup``.

    What is left of a very long name is its begin; a name without any letter or digit stays as it is.
    """
    text = re.sub(r"[_/\\\x00]+|\.\.+", " ", label[: 4 * LONGEST_NAME])
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    text = " ".join(word if len(word) <= 3 and word.isupper() else word.lower() for word in text.split())
    return tidy(text, LONGEST_NAME) or tidy(label, LONGEST_NAME) or "an action"


def tidy(text: str, longest: int = LONGEST_PROMPT) -> str:
    """One line without control characters and of bounded length, cut between words where it is too long."""
    text = text[: 8 * longest]
    spaced = "".join(" " if letter.isspace() else letter for letter in text)
    kept = (letter for letter in spaced if letter in JOINERS or unicodedata.category(letter) not in DROPPED)
    line = " ".join("".join(kept).split())
    if len(line) <= longest:
        return line
    return line[:longest].rsplit(" ", 1)[0].rstrip() or line[:longest]


def normalise(text: str) -> str:
    """What two prompts share that differ in case, punctuation and spaces alone."""
    return "".join(letter for letter in unicodedata.normalize("NFKC", text).casefold() if letter.isalnum()) or text


#: words of class names that many classes share, and that a description may leave out.
LIGHT_WORDS = frozenset(
    "the and with from into onto for out off doing making using taking getting playing performing something".split()
)


def names_action(label: str, prompt: str) -> bool:
    """Half of the class's own words are in the prompt, by their stems; true where a name has no such words."""
    words = [word for word in re.findall(r"[^\W\d_]+", in_words(label).casefold()) if len(word) > 2]
    telling = [word for word in words if word not in LIGHT_WORDS] or words
    squeezed = normalise(prompt)
    found = sum(_stem(word) in squeezed for word in telling)
    return 2 * found >= len(telling)


def _stem(word: str) -> str:
    """The begin that a word's forms share: ``brushing``, ``brushes`` -> ``brush``; ``making`` -> ``mak``."""
    stem = re.sub(r"(ing|ers?|ed|es|e|s|y)$", "", word)
    if len(stem) > 3 and stem[-1] == stem[-2] and word != stem:
        stem = stem[:-1]  # swimming, swims
    return normalise(stem if len(stem) >= 3 else word)
