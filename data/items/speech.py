"""Speech of sounds to text, by a Whisper model of TensorFlow that lies on this machine, or by
pocketsphinx, which is small and brings its own model of English."""

import contextlib
import functools
import importlib.util
import io
import os
import pathlib
import wave
import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmrec_tf.errors import ConfigError

NAME = "speech"  # of the modality that is written
_RATE_HZ = 16000
# The two measures of Radford et al. 2022, section 4.5. There silence wants more than 0.6 of the one
# and less than -1 of the other; here either is enough, and less of the first, as made-up words are
# worse than none. Of tiny.en, a dog's bark has 0.65 of the first and a baby's cry 0.23, both with
# words; clips of speech have 0.03 or less.
_MOST_NO_SPEECH, _LEAST_LOG_PROBABILITY = 0.2, -1.0
# Of text that repeats itself for want of speech.
_MOST_COMPRESSION = 2.4
_MOST_TOKENS = 192
# Pocketsphinx finds words in any sound, and is sure of all of them. People speak two words a second
# and more, and most of what they say is voice; a bird's song gives fewer words, or one many times.
_LEAST_WORDS, _LEAST_WORDS_A_SECOND, _LEAST_VOICED, _LEAST_DISTINCT = 3, 1.75, 0.6, 0.75
_WANTED = ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json")


class _Listener(Protocol):
    """What makes text of <float32>[sample] at 16 kHz."""

    def transcribe(self, samples: NDArray[np.float32]) -> str:
        """Text; "" where nobody speaks."""


@dataclass(frozen=True)
class Transcriber:
    """Makes text of a sound. The model is loaded when it is first asked, once in each process.

    Attributes:
      folder: of a Whisper model, as `transformers` saves it, with weights under TensorFlow's names;
        "" for pocketsphinx, which knows English only.
    """

    folder: str = ""

    def check(self) -> None:
        """Looks for the model without loading it.

        Raises:
          ConfigError: when files of it, or pocketsphinx, are missing.
        """
        if not self.folder:
            if importlib.util.find_spec("pocketsphinx") is None:
                raise ConfigError(
                    "--transcribe audio: wanted --speech-model DIR, the folder of a Whisper model, "
                    "or pocketsphinx, a small recognizer of English; there is neither. Install the "
                    'latter: pip install "mmrec_tf[speech]".'
                )
            return
        folder = pathlib.Path(self.folder)
        missing = [name for name in _WANTED if not (folder / name).is_file()]
        if missing:
            raise ConfigError(
                f"--speech-model: wanted the folder of a Whisper model of TensorFlow; {folder} "
                f"lacks {', '.join(missing)}. Save one there with "
                "TFWhisperForConditionalGeneration.save_pretrained and its processor."
            )

    def load(self) -> None:
        """Loads the model, so that the first sound does not wait for it.

        Raises:
          ConfigError: when it cannot be loaded.
        """
        _model(self.folder)

    def __call__(self, sound: bytes) -> str:
        """What is said in a sound.

        Args:
          sound: WAV bytes, 16-bit and mono; of more than 30 seconds the first count.

        Returns:
          Text; "" where nobody speaks, or nothing certain can be made out.
        """
        samples = _samples(sound)
        return _model(self.folder).transcribe(samples)


def _samples(sound: bytes) -> NDArray[np.float32]:
    """WAV bytes to <float32>[sample] at 16 kHz."""
    with wave.open(io.BytesIO(sound)) as file:
        rate, pcm = file.getframerate(), file.readframes(file.getnframes())
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    if rate != _RATE_HZ:
        import librosa

        samples = librosa.resample(samples, orig_sr=rate, target_sr=_RATE_HZ)
    return samples


class _Whisper:
    """A model, its tokens and its spectrogram."""

    def __init__(self, folder: str):
        import mmrec_tf.errors  # noqa: F401  the package chooses Keras 2 before TensorFlow loads

        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf
        import transformers

        transformers.logging.set_verbosity_error()
        # The worker has one CPU.
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        self._tf = tf
        self._model = transformers.TFWhisperForConditionalGeneration.from_pretrained(folder)
        self._tokens = transformers.WhisperTokenizerFast.from_pretrained(folder)
        self._hear = transformers.WhisperFeatureExtractor.from_pretrained(folder)
        settings = self._model.generation_config
        self._start = int(self._model.config.decoder_start_token_id)
        self._end = int(self._model.config.eos_token_id)
        self._no_times = self._tokens.convert_tokens_to_ids("<|notimestamps|>")
        known = self._tokens.get_vocab()
        self._no_speech = known.get("<|nospeech|>", known.get("<|nocaptions|>"))
        self._suppressed = np.array(settings.suppress_tokens or [], np.int64)
        self._first_suppressed = np.array(settings.begin_suppress_tokens or [], np.int64)
        languages = getattr(settings, "lang_to_id", None) or {}
        self._languages = np.array(sorted(languages.values()), np.int64)
        self._task = known.get("<|transcribe|>")

    def transcribe(self, samples: NDArray[np.float32]) -> str:
        """The most probable tokens one after the other (greedy), as text."""
        tf = self._tf
        heard = self._hear(samples, sampling_rate=_RATE_HZ, return_tensors="np").input_features
        encoded = self._model.model.encoder(tf.constant(heard, tf.float32))

        def ask(tokens: list[int], past: Any) -> tuple[NDArray[np.float64], Any]:
            out = self._model(
                None,
                encoder_outputs=encoded,
                decoder_input_ids=tf.constant([tokens]),
                past_key_values=past,
                use_cache=True,
            )
            return out.logits.numpy()[0].astype(np.float64), out.past_key_values

        logits, past = ask([self._start], None)
        no_speech = 0.0
        if self._no_speech is not None:
            no_speech = float(np.exp(_log_softmax(logits[0]))[self._no_speech])
        prompt = [self._no_times]
        if len(self._languages):
            language = int(self._languages[np.argmax(logits[0][self._languages])])
            prompt = [language, self._task, self._no_times]
        logits, past = ask(prompt, past)
        found: list[int] = []
        total = 0.0
        for _ in range(_MOST_TOKENS):
            scores = logits[-1].copy()
            scores[self._suppressed] = -np.inf
            if not found:
                scores[self._first_suppressed] = -np.inf
            # No times are wanted.
            scores[self._no_times :] = -np.inf
            token = int(np.argmax(scores))
            total += float(_log_softmax(scores)[token])
            if token == self._end:
                break
            found.append(token)
            logits, past = ask([token], past)
        text = str(self._tokens.decode(found, skip_special_tokens=True)).strip()
        unsure = total / (len(found) + 1) < _LEAST_LOG_PROBABILITY
        if no_speech > _MOST_NO_SPEECH or unsure or _repeats(text):
            return ""
        return text


class _Sphinx:
    """Pocketsphinx with the model of American English that comes with it."""

    def __init__(self) -> None:
        import pocketsphinx

        self._vad = pocketsphinx.Vad(mode=3, sample_rate=_RATE_HZ)
        self._decoder = pocketsphinx.Decoder(samprate=_RATE_HZ, loglevel="FATAL")

    def transcribe(self, samples: NDArray[np.float32]) -> str:
        """The most probable words; "" where these are not as speech is."""
        pcm = np.clip(np.round(32768 * samples), -32768, 32767).astype("<i2").tobytes()
        size = self._vad.frame_bytes
        frames = [pcm[at : at + size] for at in range(0, len(pcm) - size + 1, size)]
        voiced = np.mean([self._vad.is_speech(frame) for frame in frames]) if frames else 0.0
        if voiced < _LEAST_VOICED:
            return ""
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        words = found.hypstr.split() if found is not None else []
        return " ".join(words) if _as_speech(words, len(samples) / _RATE_HZ) else ""


def _as_speech(words: list[str], seconds: float) -> bool:
    """Whether so many words in so many seconds may have been spoken."""
    return (
        len(words) >= _LEAST_WORDS
        and len(words) >= _LEAST_WORDS_A_SECOND * seconds
        and len(set(words)) >= _LEAST_DISTINCT * len(words)
    )


def _repeats(text: str) -> bool:
    data = text.encode()
    return bool(data) and len(data) / len(zlib.compress(data)) > _MOST_COMPRESSION


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()), np.float64)


@functools.cache
def _model(folder: str) -> _Listener:
    if not folder:
        return _Sphinx()
    try:
        return _Whisper(folder)
    except ImportError as error:
        raise ConfigError(f"--transcribe: wanted transformers and TensorFlow; {error}.") from error
    except Exception as error:  # transformers raises whatever it likes of a damaged folder
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"--speech-model: could not load {folder} as a Whisper model of TensorFlow ({reason})."
        ) from error
