"""Models of the transformers library and of Keras with few random weights, in files."""

import tensorflow as tf


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
