"""Why an item is shown, in a sentence for people: from templates, or phrased by a language model
that is not trusted."""

import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mmrec_tf.errors import ConfigError
from mmrec_tf.recommender.contributions import (
    ITEM_HEAD,
    POPULARITY,
    USER_FEATURES,
    Contributions,
)
from mmrec_tf.towers.additive import ID, PROFILE

_ALIKE = {"text": "it reads alike", "image": "it looks alike", "audio": "it sounds alike"}
_OF_USER = {PROFILE: "it fits your profile", USER_FEATURES: "it fits what is known of you"}
# A name shorter than this stands in ordinary words.
_SHORTEST_NAME = 4
_MOST_TOKENS = 48


def sentence(found: Contributions, *, kinds: Mapping[str, str], title: Callable[[str], str]) -> str:
    """Why an item is shown.

    Args:
      found: Contributions.
      kinds: the kind of content of each modality, by name.
      title: from an item's id to what people call it.

    Returns:
      Such as "Because you liked Owl at night, and it looks alike." It names an item of the history
      only if that adds to the score, and a modality only if it outweighs the id.
    """
    if not found.known:
        return "Because it is popular: nothing is known of you yet."
    added, modality, because = found.of_item, found.modality, found.because
    popular = added[POPULARITY] > 0 and added[POPULARITY] >= max(
        value for name, value in added.items() if name != POPULARITY
    )
    of_user = found.of_user
    profile = max(of_user, key=lambda name: of_user[name])
    others = f"people who liked {title(because)} like it, too" if because else ""
    parts: list[str] = []
    if others and added[ITEM_HEAD] > max(added[modality] if modality else 0.0, added[ID], 0.0):
        parts.append(others)
    elif modality:
        kind = kinds.get(modality, "")
        alike = _ALIKE.get(kind, f"it is alike in {modality}")
        if kind in _ALIKE and list(kinds.values()).count(kind) > 1:
            alike += f" ({modality})"
        parts += (
            [f"you liked {title(because)}", alike] if because else [f"{alike} to what you like"]
        )
    elif added[ID] > 0:
        parts.append(others or "people like you like it")
    elif because:
        parts.append(f"you liked {title(because)}")
    if profile in _OF_USER and of_user[profile] > 0:
        parts.append(_OF_USER[profile])
    if popular:
        parts.append("it is popular")
    if not parts:
        return "Nothing speaks for it in particular."
    if len(parts) > 2:
        parts = [", ".join(parts[:-1]), parts[-1]]
    return f"Because {', and '.join(parts)}."


class Writer:
    """Phrases a reason by a causal language model of TensorFlow, such as GPT-2 (Radford et al.
    2019), and takes the phrase only where it names no item that is not there.

    Args:
      path: folder of the model and its tokenizer, as `save_pretrained` writes them. Nothing is
        asked of a network.

    Raises:
      ConfigError: for a folder without such a model.
    """

    def __init__(self, path: str | pathlib.Path):
        from transformers import AutoTokenizer, TFAutoModelForCausalLM

        # Without this file transformers guesses by the folder's name.
        if not (pathlib.Path(path) / "config.json").is_file():
            raise ConfigError(
                f"--writer: wanted the folder of a causal language model of TensorFlow, as "
                f"save_pretrained writes it; {path} has no config.json."
            )
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(path, **local)
            self.model = TFAutoModelForCausalLM.from_pretrained(path, **local)
        except (OSError, ValueError, ImportError) as error:
            said = " ".join(str(error).split())
            raise ConfigError(
                f"--writer: wanted a causal language model of TensorFlow with its tokenizer, as "
                f"save_pretrained writes them, in {path}; {said:.300}"
            ) from error

    def phrase(
        self, template: str, *, named: Iterable[str], others: Iterable[str]
    ) -> tuple[str, str]:
        """Another wording of a sentence.

        Args:
          template: what `sentence` wrote.
          named: titles that may be named, those in the template.
          others: titles and ids of all items.

        Returns:
          The sentence, the template itself where the model's is refused; and why it is, "" where it
          is not.
        """
        prompt = f"Say in one friendly sentence: {template}\n"
        inputs = self.tokenizer(prompt, return_tensors="tf")
        length = int(inputs["input_ids"].shape[1])
        room = getattr(self.model.config, "max_position_embeddings", None) or 1024
        if length + 8 > room:
            return template, f"the prompt has {length} tokens, and the model reads {room}"
        out = self.model.generate(
            **inputs,
            max_new_tokens=min(_MOST_TOKENS, room - length),
            do_sample=False,
            pad_token_id=self.tokenizer.eos_token_id or 0,
        )
        said = self.tokenizer.decode(out[0][length:], skip_special_tokens=True).strip()
        said = " ".join(said.partition("\n")[0].split())
        if why := refusal(said, named=named, others=others):
            return template, why
        return said, ""


def refusal(said: str, *, named: Iterable[str], others: Iterable[str]) -> str:
    """Why a phrase is not to be shown; "" where it may be.

    Args:
      said: the phrase.
      named: titles that it may name, and has to: those of the template.
      others: titles and ids of all items.
    """
    named = [name for name in named if name]
    lower = said.lower()
    if not said:
        return "it says nothing"
    missing = [name for name in named if name.lower() not in lower]
    if missing:
        return f"it does not name {missing[0]!r}"
    rest = lower
    for name in sorted(named, key=len, reverse=True):
        rest = rest.replace(name.lower(), " ")
    words = f" {''.join(c if c.isalnum() else ' ' for c in rest)} "
    words = " ".join(words.split())
    for name in others:
        plain = " ".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
        if len(plain) >= _SHORTEST_NAME or any(c.isdigit() for c in plain):
            if plain and f" {plain} " in f" {words} ":
                return f"it names {name!r}, which is no reason"
    if any(quote in rest for quote in ('"', "“", "„", "«")):
        return "it quotes what is no title"
    return ""
