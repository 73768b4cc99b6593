import pickle
import re

import pytest

from bnhead import heads

pytestmark = pytest.mark.quick

SAME_HEAD = [  # text, canonical text
    ("fc", "fc"),
    ("gap_fc_out", "fc"),
    ("out", "out"),
    ("gap", "out"),
    ("bn", "bn_out"),
    ("gap_bn_out", "bn_out"),
    ("bn_fc", "bn_fc"),
    ("gap_bn_fc", "bn_fc"),
    ("bn_gap_fc_out", "bn_gap_fc"),
    ("fc_out_bn", "fc_out_bn"),
    ("gmp_dense64", "gmp_dense64"),
    ("catpool_bn_dropout.250_fc512_bn_dropout0.5_out", "catpool_bn_dropout0.25_fc512_bn_dropout0.5"),
    ("flatten_fc_fc", "flatten_fc_fc"),
    ("dropout0.00001_out", "dropout0.00001_out"),
    ("dropout0.123456789012_out", "dropout0.123456789012_out"),
    ("gap_bn-gamma-beta_out-bias", "bn-beta-gamma_out-bias"),
    ("fc32-bias_out-bias", "fc32-bias_out-bias"),
    ("fc32-bias_out", "fc32-bias"),
    ("gap_gbn16-beta_fc8", "gbn16-beta_fc8"),
    ("gbn2_out", "gbn2_out"),
    ("brn_fc_out", "brn_fc"),
    ("fbn", "fbn_out"),
    ("ln-beta_dense_relu6", "ln-beta_dense_relu6"),
    ("rms", "rms_out"),
    ("gap_gn4", "gn4_out"),
    ("center_scale", "center_scale_out"),
    ("noise_fc_out", "noise_fc"),
    ("l2_out-bias", "l2_out-bias"),
    ("gem_cdropout.5_dense8_leakyrelu", "gem_cdropout0.5_dense8_leakyrelu"),
    ("gelu_gap_out", "gelu_gap_out"),
    ("out_center_scale", "out_center_scale"),
    ("fastai", "catpool_bn_dropout0.25_fc512-bias_bn_dropout0.5_out-bias"),
    ("plain", "out"),
]

INVALID = [  # text, what the message must contain: the failing token marked, and a hint
    ("", "'bn_fc'"),
    ("bn__fc", "bn_>><<_fc"),
    ("bn_fc_", "bn_fc_>><<"),
    ("_fc", ">><<_fc"),
    ("bn_fx", "bn_>>fx<<': 'fx' is not a token; did you mean 'fc'?"),
    ("dropuot0.5", ">>dropuot0.5<<': 'dropuot0.5' is not a token; did you mean 'dropout'?"),
    ("BN_fc", ">>BN<<_fc': 'BN' is not a token; did you mean 'bn'?"),
    ("bnfc", ">>bnfc<<': 'bnfc' is not a token; did you mean 'bn_fc'?"),
    ("gap_dropout0.5fc512-bias", "did you mean 'dropout0.5_fc512-bias'?"),
    ("fastia", ">>fastia<<': 'fastia' is not a token; did you mean 'fastai'?"),
    ("bn_nek", "did you mean 'bnneck'?"),
    ("bn_fc_fastai", "bn_fc_>>fastai<<': 'fastai' is the name of a head and must stand alone"),
    ("bn\nfc", r">>bn\nfc<<"),
    ("leaky_relu", ">>leaky<<_relu': 'leaky' is not a token"),
    ("fc 256", ">>fc 256<<"),
    ("fc0", ">>fc0<<': 'fc0' needs a whole number of at least 1 as its units, as in 'fc256'"),
    ("fc2.5", ">>fc2.5<<': 'fc2.5' needs a whole number of at least 1 as its units"),
    ("fc012", ">>fc012<<': 'fc012' needs a whole number of at least 1 as its units"),
    ("dense0", "needs a whole number of at least 1 as its units, as in 'dense256'"),
    ("fc-1", ">>fc-1<<': 'fc-1' has no part '1' to leave out, only 'fc-bias'"),
    ("fc-", ">>fc-<<': 'fc-' has no part '' to leave out"),
    ("fc-beta", "has no part 'beta' to leave out, only 'fc-bias'"),
    ("bn-bias", ">>bn-bias<<': 'bn-bias' has no part 'bias' to leave out, only 'bn-beta' and 'bn-gamma'"),
    ("bn-beta-beta", "leaves out 'beta' twice"),
    ("gap-beta", "has no part 'beta' to leave out; `bnhead heads`"),
    ("noise-gamma", ">>noise-gamma<<"),
    ("bn8", ">>bn8<<': 'bn8' takes no number; write 'bn'"),
    ("out10", ">>out10<<': 'out10' takes no number; write 'out'"),
    ("relu7", ">>relu7<<': 'relu7' takes no number; write 'relu'"),
    ("gap2_fc", ">>gap2<<_fc"),
    ("fc_dropout", "fc_>>dropout<<': 'dropout' needs its rate, as in 'dropout0.5'"),
    ("dropout0", "needs a number between 0 and 1 as its rate, as in 'dropout0.5'"),
    ("dropout1", ">>dropout1<<': 'dropout1' needs a number between 0 and 1 as its rate"),
    ("dropout50", ">>dropout50<<"),
    ("cdropout", "needs its rate, as in 'cdropout0.5'"),
    ("cdropout1.5", ">>cdropout1.5<<"),
    ("gbn_fc", ">>gbn<<_fc': 'gbn' needs its ghost size, as in 'gbn16'"),
    ("gbn1_fc", "needs a whole number of at least 2 as its ghost size, as in 'gbn16'"),
    ("gbn2.5", ">>gbn2.5<<"),
    ("gn", ">>gn<<': 'gn' needs its groups, as in 'gn8'"),
    ("gn0", "needs a whole number of at least 1 as its groups, as in 'gn8'"),
    ("fc_gap", ">>fc<<_gap': 'fc' needs a vector; put it after the pooling 'gap'"),
    ("dense8_flatten_out", ">>dense8<<_flatten_out': 'dense8' needs a vector"),
    ("out_gap", ">>out<<_gap"),
    ("gap_gmp", "gap_>>gmp<<': 'gmp' is a second pooling"),
    ("gem_fc_flatten", "gem_fc_>>flatten<<"),
    ("fc_out_out", "fc_out_>>out<<': 'out' is a second output layer"),
    (
        "out_fc",
        "out_>>fc<<': 'fc' cannot follow the output layer; only a batch norm or a part of one can",
    ),
    ("out_dropout0.5", "out_>>dropout0.5<<': 'dropout0.5' cannot follow the output layer"),
    ("out_ln", "out_>>ln<<"),
    ("out_relu", "out_>>relu<<"),
]


@pytest.mark.parametrize(("text", "canonical"), SAME_HEAD)
def test_canonical_text_is_a_fixed_point(text, canonical):
    assert heads.canonical(text) == canonical
    assert heads.canonical(canonical) == canonical


@pytest.mark.parametrize(("text", "expected"), INVALID)
def test_invalid_text_marks_the_token_and_ends_with_the_command_that_lists_them(text, expected):
    with pytest.raises(heads.HeadError) as caught:
        heads.canonical(text)
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message
    if text:
        assert re.search(r"head '.*>>.*<<.*': ", message)
        assert message.endswith(" `bnhead heads` lists tokens and heads")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fc", "bn_fc"),
        ("out", "bn_out"),
        ("gmp_fc64_dropout0.5", "gmp_bn_fc64_dropout0.5"),
        ("relu_gem_ln_fc", "relu_gem_bn_ln_fc"),
        ("bn_fc", "fc"),
        ("bn_gap_fc_bn_out_bn", "fc"),
        ("gbn16_fc", "fc"),
        ("noise_out", "out"),
    ],
)
def test_the_counterpart_has_no_batch_norm_or_one_at_p1(text, expected):
    assert heads.parse(text).counterpart.text == expected


@pytest.mark.parametrize("value", [None, 3, ["fc"]])
def test_a_head_is_a_text(value):
    with pytest.raises(heads.HeadError, match="tokens joined by '_'"):
        heads.parse(value)


@pytest.mark.parametrize(
    ("text", "placements"),
    [
        ("fc", ()),
        ("ln_fc", ()),
        ("l2_fc", ()),
        ("bn_gap_fc", ("P0",)),
        ("bn_fc", ("P1",)),
        ("bn_out", ("P1",)),
        ("fc_bn", ("P2",)),
        ("dense_bn", ("P2",)),
        ("fc_out_bn", ("P3",)),
        ("bn_gap_bn_fc_bn_out_bn", ("P0", "P1", "P2", "P3")),
        ("gbn8_gem_brn_fc_fbn_out_center", ("P0", "P1", "P2", "P3")),
        ("scale_gap_noise_out", ("P0", "P1")),
        ("arcface", ("P0", "P2")),
        ("final_bn_logits", ("P3",)),
    ],
)
def test_placement(text, placements):
    assert heads.placement(text) == placements


def test_describe_writes_shapes_options_and_placement():
    described = heads.describe(
        "catpool_bn_dropout0.25_fc", (8, 8, 64), 10, fc_units=512, fc_activation="gelu"
    )
    assert described == "8x8x64 -> catpool -> 128 -> bn -> dropout(0.25) -> fc(512, gelu) -> out(10)  [P1]"
    assert heads.describe("flatten_dense16_fc8", (2, 3, 4), 5) == (
        "2x3x4 -> flatten -> 24 -> dense(16) -> fc(8, relu) -> out(5)"
    )
    assert heads.describe("bn_fc", (512,), 10) == "512 -> bn -> fc(256, relu) -> out(10)  [P1]"
    assert heads.describe("fc") == "features -> gap -> fc(256, relu) -> out(?)"
    assert heads.describe("gbn16-beta_fc8-bias_out-bias", (4, 4, 8), 3) == (
        "4x4x8 -> gap -> 8 -> gbn(16, no beta) -> fc(8, relu, no bias) -> out(3, no bias)  [P1]"
    )


def test_unknown_sizes_are_question_marks():
    assert heads.describe("flatten_fc", (None, None, 64), 10).startswith("?x?x64 -> flatten -> ? -> fc")


def test_large_units_keep_all_their_digits():
    for text in ("fc1000000", "fc1234567"):
        assert heads.canonical(text) == text
        assert f"fc({text[2:]}, relu)" in heads.describe(text)


def test_which_heads_read_labels():
    assert heads.parse("cdropout0.5_fc").needs_labels
    assert not any(heads.parse(name).needs_labels for name in heads.PRESETS)


def test_a_head_is_parsed_once_and_goes_to_other_processes():
    head = heads.parse("gap_bn_fc8_out")
    assert heads.parse(head) is head and head.text == "bn_fc8"
    assert head == heads.parse("bn_fc8") != heads.parse("bn_fc")
    copy = pickle.loads(pickle.dumps(head))
    assert (copy, copy.tokens, copy.words) == (head, head.tokens, ("gap", "bn", "fc8", "out"))


def test_a_vector_is_not_pooled():
    assert [str(t) for t in heads.parse("bn_fc").on((8,))] == ["bn", "fc", "out"]
    assert [str(t) for t in heads.parse("bn_fc").on((4, 4, 8))] == ["gap", "bn", "fc", "out"]
    with pytest.raises(heads.HeadError, match="bn_>>gmp<<_fc': 'gmp' has nothing to pool"):
        heads.parse("bn_gmp_fc").on((8,))


def test_every_token_is_documented():
    table = heads.__doc__.split("number\n")[1].split("\n\n")[0]
    documented = {word for line in table.splitlines() for word in line[:34].split()}
    assert documented == set(heads.TOKENS)


def test_long_texts_are_refused_at_once():
    """Parsing takes time linear in the length of the text."""
    texts = (
        "fc" + "1" * 20_000 + "x",
        "1" * 20_000,
        "fc" + "9" * 5_000,
        "dropout0." + "5" * 5_000,
        "_" * 20_000,
    )
    for text in texts:
        with pytest.raises(heads.HeadError):
            heads.canonical(text)


def test_only_ascii_digits_are_digits():
    with pytest.raises(heads.HeadError):
        heads.canonical("fc\u0663\u0662")
