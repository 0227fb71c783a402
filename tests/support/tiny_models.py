"""Models of the transformers library and of Keras with few random weights, in files."""

import json
import pathlib

import tensorflow as tf

WORDS = "a small gray bird the sings drum ##s tree on !".split()


def keras_model(path) -> str:
    """Two convolutions, 32 x 32 pixels to 5 channels."""
    model = tf.keras.Sequential(
        [
            tf.keras.Input([32, 32, 3]),
            tf.keras.layers.Conv2D(4, 3, strides=4, activation="relu"),
            tf.keras.layers.Conv2D(5, 3),
        ]
    )
    model.save(path)
    return str(path)


def vision(folder, model_type: str) -> str:
    """Of 32 x 32 pixels, two blocks or stages, 8 numbers (Swin: 16)."""
    import transformers

    if model_type == "vit":
        config = transformers.ViTConfig(
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=32,
            patch_size=16,
        )
        model = transformers.TFViTModel(config)
    elif model_type == "swin":
        config = transformers.SwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
        )
        model = transformers.TFSwinModel(config)
    else:
        config = transformers.ConvNextConfig(
            image_size=32, num_stages=2, hidden_sizes=[4, 8], depths=[1, 1]
        )
        model = transformers.TFConvNextModel(config)
    model.build_in_name_scope()
    model.save_pretrained(folder)
    return str(folder)


def speech(folder, model_type: str) -> str:
    """Two blocks, 8 numbers; Whisper's window is a second."""
    import transformers

    if model_type == "whisper":
        config = transformers.WhisperConfig(
            d_model=8,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            num_mel_bins=16,
            max_source_positions=50,
            vocab_size=20,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
        model = transformers.TFWhisperModel(config)
    else:
        sizes = {
            "hidden_size": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "conv_dim": (8, 8),
            "conv_stride": (20, 4),
            "conv_kernel": (40, 4),
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
        }
        if model_type == "hubert":
            model = transformers.TFHubertModel(transformers.HubertConfig(**sizes))
        else:
            model = transformers.TFWav2Vec2Model(transformers.Wav2Vec2Config(**sizes))
    model.build_in_name_scope()
    model.save_pretrained(folder)
    return str(folder)


def saved_sound(folder) -> str:
    """In YAMNet's form: a waveform to frames of 400 samples, as scores and embeddings."""

    class Network(tf.Module):
        def __init__(self):
            super().__init__()
            self.kernel = tf.Variable(tf.random.stateless_normal([400, 4], [0, 0]))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="waveform")])
        def call(self, waveform):
            frames = tf.signal.frame(waveform, 400, 400) @ self.kernel
            return {"scores": tf.nn.softmax(frames), "embeddings": tf.nn.relu(frames)}

    network = Network()
    tf.saved_model.save(network, str(folder), signatures=network.call)
    return str(folder)


def lite_sound(path) -> str:
    """A TFLite network from 800 samples to 3 numbers."""
    kernel = tf.random.stateless_normal([800, 3], [0, 1])

    @tf.function(input_signature=[tf.TensorSpec([1, 800], tf.float32)])
    def call(waveform):
        return waveform @ kernel

    converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()])
    path.write_bytes(converter.convert())
    return str(path)


def language(folder, model_type: str) -> str:
    """Two blocks, 8 numbers, with a tokenizer of its own kind over a few words."""
    import tokenizers
    import transformers

    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 24,
    }
    folder = pathlib.Path(folder)
    if model_type in ("distilbert", "electra"):
        marks = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
    else:
        marks = {"unk": "<unk>", "cls": "<s>", "sep": "</s>", "pad": "<pad>", "mask": "<mask>"}
    if model_type == "mpnet":
        marks["unk"] = "[UNK]"
    if model_type in ("distilbert", "electra", "mpnet"):
        first = [marks["cls"], marks["pad"], marks["sep"]]
        if model_type != "mpnet":
            first = [marks["pad"], marks["cls"], marks["sep"]]
        tokens = [*first, marks["unk"], marks["mask"], *WORDS]
        backend = tokenizers.BertWordPieceTokenizer(
            {token: number for number, token in enumerate(tokens)},
            unk_token=marks["unk"],
            sep_token=marks["sep"],
            cls_token=marks["cls"],
            pad_token=marks["pad"],
            mask_token=marks["mask"],
        )
    else:
        backend = tokenizers.ByteLevelBPETokenizer()
        first = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        backend.train_from_iterator([" ".join(WORDS)], vocab_size=280, special_tokens=first)
        backend.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        tokens = range(backend.get_vocab_size())
    padding = {"pad_token_id": 1 if model_type in ("mpnet", "roberta") else 0}
    if model_type == "distilbert":
        config = transformers.DistilBertConfig(
            vocab_size=len(tokens),
            dim=8,
            n_layers=2,
            n_heads=2,
            hidden_dim=16,
            max_position_embeddings=24,
        )
        model = transformers.TFDistilBertModel(config)
    else:
        names = {"electra": "Electra", "mpnet": "MPNet", "roberta": "Roberta"}
        kind = names[model_type]
        config = getattr(transformers, f"{kind}Config")(vocab_size=len(tokens), **sizes, **padding)
        model = getattr(transformers, f"TF{kind}Model")(config)
    model.build_in_name_scope()
    model.save_pretrained(folder)
    backend.save(str(folder / "tokenizer.json"))
    settings = {f"{name}_token": token for name, token in marks.items()}
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(folder)


def clip(folder) -> str:
    """Both halves of two blocks, 8 numbers, with a tokenizer learned from a few words."""
    import tokenizers
    import transformers

    folder = pathlib.Path(folder)
    half = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 6,
    }
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>"))
    split = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    backend.normalizer = tokenizers.normalizers.Sequence(
        [
            tokenizers.normalizers.NFC(),
            tokenizers.normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
            tokenizers.normalizers.Lowercase(),
        ]
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(split), "removed", invert=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    marks = ["<|startoftext|>", "<|endoftext|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        special_tokens=[f"{letter}</w>" for letter in sorted(letters)],
        show_progress=False,
    )
    backend.train_from_iterator([" ".join(WORDS), "the birds sing, the bird's trees"] * 3, trainer)
    state = json.loads(backend.to_str())
    state["added_tokens"] = []
    for mark in marks:
        state["model"]["vocab"][mark] = len(state["model"]["vocab"])
    vocab = state["model"]["vocab"]
    state["post_processor"] = {
        "type": "RobertaProcessing",
        "sep": [marks[1], vocab[marks[1]]],
        "cls": [marks[0], vocab[marks[0]]],
        "trim_offsets": False,
        "add_prefix_space": False,
    }
    config = transformers.CLIPConfig(
        text_config={
            **half,
            "vocab_size": len(vocab),
            "max_position_embeddings": 20,
            "bos_token_id": vocab[marks[0]],
            "eos_token_id": vocab[marks[1]],
            "pad_token_id": vocab[marks[1]],
        },
        vision_config={**half, "image_size": 32, "patch_size": 16},
        projection_dim=6,
    )
    model = transformers.TFCLIPModel(config)
    model.build_in_name_scope()
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(state))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": marks[0]}
    settings |= {"eos_token": marks[1], "pad_token": marks[1], "unk_token": marks[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(folder)
