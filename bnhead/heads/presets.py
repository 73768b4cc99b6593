"""Published heads, each with its source."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A published head.

    Attributes:
        text: the head's text.
        source: paper and code.
        note: its purpose, and the parts of the source that the text does not cover.
    """

    text: str
    source: str
    note: str


PRESETS: dict[str, Preset] = {
    "plain": Preset(
        "out",
        "keras.applications, such as resnet.py, ResNet(include_top=True)",
        "No norm: the control.",
    ),
    "fastai": Preset(
        "catpool_bn_dropout0.25_fc512-bias_bn_dropout0.5_out-bias",
        "fastai, vision/learner.py, create_head with its defaults; layers.py, LinBnDrop",
        "A batch norm before both linear layers. They have no bias; the norm's offset gives them one.",
    ),
    "bnneck": Preset(
        "bn-beta_out-bias",
        "Luo et al. 2019, arXiv 1903.07071, section 3.6; reid-strong-baseline, modeling/baseline.py",
        "For retrieval: a triplet loss reads the features before the norm, the softmax those after it. "
        "This head is the softmax half.",
    ),
    "arcface": Preset(
        "bn_dropout0.4_flatten_dense512_bn-gamma_out-bias",
        "Deng et al. 2019, arXiv 1801.07698, section 3.1, option E; insightface, symbol_utils.py, get_fc1",
        "The output of the second norm, 512 numbers, is the embedding. The paper's margin loss, which "
        "normalises the output layer's weights, is not part of the head.",
    ),
    "mae_probe": Preset(
        "bn-beta-gamma_out",
        "He et al. 2021, arXiv 2111.06377, appendix A.1; mae, main_linprobe.py",
        "A linear probe on frozen features, whose scale differs between nets. Freeze the backbone for it.",
    ),
    "norm_mlp": Preset(
        "ln_dense_tanh",
        "timm, layers/classifier.py, NormMlpClassifierHead with hidden_size",
        "The head of ConvNeXt and similar nets, with a layer norm and, by default, tanh.",
    ),
    "norm_linear": Preset(
        "bn_out",
        "Graham et al. 2021, arXiv 2104.01136, section 4; timm, models/levit.py, NormLinear",
        "LeViT, RepViT, EfficientViT and SHViT; the norm is folded into the linear layer for inference.",
    ),
    "model_garden": Preset(
        "bn_gap_out",
        "TensorFlow Model Garden, official/vision/modeling/classification_model.py, add_head_batch_norm",
        "A norm on the feature map; in the Model Garden an option, off by default.",
    ),
    "final_bn": Preset(
        "bn_out",
        "Kocaman et al. 2020, arXiv 2011.06319; 2021, arXiv 2109.09016",
        "For imbalanced classes. The papers put the norm 'before the softmax output layer'; this head "
        "assumes that this layer includes the last Dense.",
    ),
    "final_bn_logits": Preset(
        "out_bn",
        "Kocaman et al. 2020, arXiv 2011.06319; 2021, arXiv 2109.09016",
        "The other interpretation: after the last Dense, before the softmax.",
    ),
}
