"""Small bodies in exactly the format that the hub has."""

SIZES = {
    "roberta": {"vocab_size": 300, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
                "intermediate_size": 64, "max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1},
    "bert": {"vocab_size": 300, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
             "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 1},
    "gpt2": {"vocab_size": 300, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64,
             "bos_token_id": 0, "eos_token_id": 2},
    "gpt_neox": {"vocab_size": 300, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
                 "intermediate_size": 64, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 2},
    "swin": {"image_size": 32, "patch_size": 4, "num_channels": 3, "embed_dim": 24, "depths": [1, 2],
             "num_heads": [2, 2], "window_size": 4},
    "vit": {"image_size": 32, "patch_size": 8, "num_channels": 3, "hidden_size": 48, "num_hidden_layers": 3,
            "num_attention_heads": 4, "intermediate_size": 64},
}  # fmt: skip
"""A small body of every family that is supported."""


def saved_swin(folder, **settings):
    """A small Swin in exactly the format the hub has: config.json and model.safetensors of a classifier."""
    import torch
    from transformers import SwinConfig, SwinForImageClassification

    sizes = {
        "image_size": 32,
        "patch_size": 4,
        "embed_dim": 24,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 4,
    }
    torch.manual_seed(0)
    SwinForImageClassification(SwinConfig(**{**sizes, **settings})).save_pretrained(folder)
    return folder


def saved_roberta(folder, width=48):
    """A small RoBERTa masked language model with its tokenizer, in the hub's format."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

    words = {w: i for i, w in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "the", "a", "of", "type", "is"])}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", mask_token="<mask>")
    tokenizer.save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=len(words), hidden_size=width, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=66, type_vocab_size=1, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    RobertaForMaskedLM(config).save_pretrained(folder)
    return folder
