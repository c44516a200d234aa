"""`seedbed.keras` on JAX; on torch if KERAS_BACKEND names it, as test_backends.py does."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy import stats

import seedbed
import seedbed.keras
from seedbed.v1 import Model


@pytest.fixture(scope="module")
def client():
    with seedbed.connect("local:") as client:
        yield client


def images():
    x = inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(16, 3, activation="relu", kernel_initializer="he_normal")(x)
    x = layers.BatchNormalization()(x)
    x = layers.SeparableConv2D(32, 3, depthwise_initializer="he_uniform", pointwise_initializer="lecun_normal")(x)
    x = layers.GroupNormalization(4)(x)
    x = layers.Conv2DTranspose(16, 3, kernel_initializer="lecun_uniform")(x)
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(
        inputs, layers.Dense(40, kernel_initializer="glorot_normal", bias_initializer="random_normal")(x)
    )


def sequences():
    x = inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(100, 32)(x)
    x = layers.Bidirectional(layers.LSTM(24, return_sequences=True))(x)
    return keras.Model(inputs, layers.Dense(10)(layers.GRU(24)(x)))


def transformer():
    x = inputs = keras.Input((12, 32))
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 8)(x, x))
        hidden = layers.Dense(64, kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02))(x)
        x = layers.LayerNormalization()(
            x + layers.Dense(32, kernel_initializer=keras.initializers.Orthogonal(2.0))(hidden)
        )
    return keras.Model(inputs, x)


def odd():
    """The other initializers of Keras, also on shapes of one dimension."""
    init = keras.initializers
    weights = {
        "identity": ((8, 8), init.Identity(3.0)),
        "constant": ((5,), init.Constant(0.5)),
        "array": ((2, 3), init.Constant(np.arange(6.0).reshape(2, 3))),
        "uniform": ((500,), init.RandomUniform(1.0, 4.0)),
        "normal": ((500,), init.RandomNormal(1.0, 3.0)),
        "vector": ((500,), "glorot_uniform"),
        "vector_normal": ((500,), "he_normal"),
        "untruncated": ((30, 20), init.VarianceScaling(3.0, "fan_out", "untruncated_normal")),
        "fan_avg": ((30, 20), init.VarianceScaling(3.0, "fan_avg", "uniform")),
        "axes": ((30, 4, 20), init.VarianceScaling(3.0, "fan_in", "uniform", input_axes=[0], output_axes=[1, 2])),
        "wide": ((4, 5, 40), init.Orthogonal()),
        "stft": ((16, 1, 9), init.STFT("real", "hann")),
        "function": ((4,), lambda shape, dtype: keras.ops.arange(4, dtype=dtype)),
        "scalar": ((), "ones"),
    }
    layer = keras.layers.Layer(name="odd")
    for name, (shape, initializer) in weights.items():
        layer.add_weight(shape=shape, initializer=initializer, name=name)
    layer.built = True
    return layer


MODELS = [images, sequences, transformer, odd]


def arrays(model):
    return {weight.path: np.asarray(keras.ops.convert_to_numpy(weight)) for weight in model.weights}


@pytest.mark.parametrize("make", MODELS)
def test_the_laws_are_the_models_own(client, make):
    keras.utils.set_random_seed(0)
    own, ours = make(), seedbed.keras.build(make, client, seed=7)
    pairs = list(zip(arrays(own).items(), arrays(ours).items(), strict=True))
    assert len({name for _, (name, _) in pairs}) == len(pairs)
    for (_, theirs), (name, values) in pairs:
        assert values.shape == theirs.shape, name
        assert values.dtype == theirs.dtype, name
        if theirs.size < 20 or len(np.unique(theirs)) < theirs.size / 2 or "stft" in name or "function" in name:
            np.testing.assert_array_equal(values, theirs, err_msg=name)  # nothing was drawn
            continue
        assert stats.ks_2samp(values.ravel(), theirs.ravel()).pvalue > 1e-3 / len(pairs), name
        assert values.std() == pytest.approx(theirs.std(), rel=5 / np.sqrt(theirs.size)), name


def test_orthogonal_matrices_are_keras(client):
    weights = arrays(seedbed.keras.build(transformer, client, seed=7))
    matrix = weights["dense_1/kernel"]
    np.testing.assert_allclose(matrix.T @ matrix, 4 * np.eye(32), atol=1e-5)
    wide = arrays(seedbed.keras.build(odd, client, seed=7))["odd/wide"].reshape(20, 40)
    np.testing.assert_allclose(wide @ wide.T, np.eye(20), atol=1e-5)


def test_a_model_that_is_built_is_filled_in_place(client):
    sequences()  # so that the numbers of layers without names differ
    model, recorded = sequences(), seedbed.keras.record(sequences, seed=7)
    assert [weight.path for weight in model.weights] != [spec.name for spec in recorded.tensors]
    done = []
    seedbed.keras.init_model(model, client, recorded, progress=lambda *bytes_: done.append(bytes_))
    expected = seedbed.keras.build(sequences, client, seed=7)
    for one, other in zip(arrays(model).values(), arrays(expected).values(), strict=True):
        np.testing.assert_array_equal(one, other)
    values = {spec.name: client.init(spec) for spec in recorded.tensors}
    for name, array in arrays(expected).items():
        np.testing.assert_array_equal(array, values[name])
    assert done[-1][0] == done[-1][1] > 0
    model(np.ones((1, 5), "int32"))


def test_names_are_those_of_a_new_process():
    first, second = (seedbed.keras.record(images, seed=7) for _ in range(2))
    assert first == second
    assert first.tensors[0].name == "conv2d/kernel"


def test_a_model_is_trained_after_it(client):
    model = seedbed.keras.build(with_initializers, client, seed=7)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    x = np.random.default_rng(0).normal(size=(8, 8)).astype("float32")
    losses = model.fit(x, x[:, :4], epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def twins(first, second):
    def make():
        x = keras.Input((6,))
        return keras.Model(x, [layers.Dense(6, kernel_initializer=each)(x) for each in (first, second)])

    return make


def test_what_is_equal_in_keras_is_equal_here(client):
    one = keras.initializers.GlorotNormal()
    same = [
        twins(one, one),
        twins(keras.initializers.HeNormal(seed=3), keras.initializers.HeNormal(seed=3)),
    ]
    other = [
        twins("glorot_normal", "glorot_normal"),
        twins(keras.initializers.HeNormal(seed=3), keras.initializers.HeNormal(seed=4)),
        twins(*[keras.initializers.HeNormal(seed=keras.random.SeedGenerator(3))] * 2),
    ]
    for make in [*same, *other]:
        for model in (make(), seedbed.keras.build(make, client, seed=7)):
            first, second = (values for name, values in arrays(model).items() if name.endswith("kernel"))
            assert (first == second).all() == (make in same)


@keras.saving.register_keras_serializable()
class Drawn(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return 2 * keras.random.normal(shape, dtype=dtype, seed=1)


class Derived(keras.initializers.HeNormal):
    def __call__(self, shape, dtype=None):
        return 2 * super().__call__(shape, dtype)


@pytest.mark.parametrize("initializer", [Drawn(), Derived(), lambda shape, dtype: keras.random.normal(shape)])
def test_what_draws_by_itself_is_refused(client, initializer):
    make = twins("zeros", initializer)
    for call in (lambda: seedbed.keras.record(make), lambda: seedbed.keras.build(make, client)):
        with pytest.raises(
            seedbed.InvalidRequest, match=r"dense_1/kernel: is drawn by .*use one of keras\.initializers"
        ):
            call()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: keras.Sequential([layers.Dense(3)]), "which has no weights yet; give it an Input"),
        (lambda: 5, "build: returned 5; it must return a model"),
    ],
)
def test_what_is_no_model_is_refused(make, text):
    with pytest.raises(seedbed.InvalidRequest, match=text):
        seedbed.keras.record(make)


def test_a_failure_leaves_keras_as_it_was(client):
    with pytest.raises(ZeroDivisionError):
        seedbed.keras.record(lambda: 1 / 0)
    assert layers.Dense(3)(np.ones((1, 2), "float32")).shape == (1, 3)


def test_a_model_that_does_not_fit_is_refused_before_anything_is_changed(client):
    model = images()
    before = arrays(model)
    recorded = seedbed.keras.record(images, seed=7)
    wrong = Model()
    wrong.CopyFrom(recorded)
    wrong.tensors[-1].shape[0] = 41
    for other, text in [
        (wrong, r"model: has 'dense[_\d]*/bias', shape \(40,\), float32, where .* 'dense/bias', shape \(41,\)"),
        (seedbed.keras.record(sequences), r"model: has \d+ weights, and the recorded model \d+"),
    ]:
        with pytest.raises(seedbed.InvalidRequest, match=text):
            seedbed.keras.init_model(model, client, other)
    for name, values in arrays(model).items():
        np.testing.assert_array_equal(values, before[name])


# JAX has float64 in its 64-bit mode, which is all of a process's.
COMPARED = {"float16": "float32", "bfloat16": "float32", "float64": "float64"}
TYPES = ["float16", "bfloat16", *(["float64"] if keras.backend.backend() == "torch" else [])]


@pytest.mark.parametrize("dtype", TYPES)
def test_other_types(client, dtype):
    def make():
        return keras.Sequential([keras.Input((8,), dtype=dtype), layers.Dense(4, dtype=dtype)])

    model = seedbed.keras.build(make, client, seed=7)
    assert model.weights[0].dtype == dtype
    expected = client.init(seedbed.keras.record(make, seed=7).tensors[0]).astype(np.float64)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(keras.ops.cast(model.weights[0], COMPARED[dtype])), expected
    )


# The initializer ------------------------------------------------------------------------------------------------------


def with_initializers():
    make = seedbed.keras.Initializer
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(4, kernel_initializer=make("trunc_normal", name="a", seed=3, std=0.02)),
            layers.Dense(
                4,
                kernel_initializer=make("variance_scaling", name="b", scale=1, mode="fan_out", distribution="uniform"),
            ),
        ]
    )


def test_an_initializer_gives_the_clients_values(client):
    values = arrays(with_initializers())
    first, second = (array for name, array in values.items() if name.endswith("kernel"))
    np.testing.assert_array_equal(first, client.trunc_normal((8, 4), std=0.02, seed=3, name="a"))
    np.testing.assert_array_equal(second, client.variance_scaling((4, 4), 1.0, "fan_out", "uniform", name="b"))


def test_it_is_saved_with_the_model(tmp_path):
    model = with_initializers()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    cloned = keras.models.clone_model(model)
    for other in (loaded, cloned):
        assert other.layers[0].kernel_initializer.get_config() == model.layers[0].kernel_initializer.get_config()
        for one, another in zip(model.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(another))
    assert model.layers[0].kernel_initializer.get_config() == {
        "scheme": "trunc_normal", "name": "a", "seed": 3, "target": "local:", "std": 0.02,
    }  # fmt: skip


def test_it_is_recorded_by_its_own_name_and_seed(client):
    model = seedbed.keras.build(with_initializers, client, seed=7)
    for one, other in zip(model.get_weights(), with_initializers().get_weights(), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_one_initializer_for_two_weights_is_refused():
    initializer = seedbed.keras.Initializer("normal", name="a")
    layers.Dense(4, kernel_initializer=initializer).build((None, 8))
    layers.Dense(4, kernel_initializer=initializer.clone()).build((None, 8))
    with pytest.raises(seedbed.InvalidRequest, match="name: 'a' already names another weight"):
        layers.Dense(4, kernel_initializer=initializer).build((None, 8))


def test_its_mistakes_are_refused_at_once():
    with pytest.raises(seedbed.InvalidRequest, match="scheme"):
        seedbed.keras.Initializer("gauss", name="a")
    with pytest.raises(TypeError):
        seedbed.keras.Initializer("normal", name="a", gain=3)
    with pytest.raises(TypeError):
        seedbed.keras.Initializer("normal")
