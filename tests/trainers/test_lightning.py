"""Lightning: a module that fills itself in configure_model holds the same weights under every strategy."""

import _ranks
import _trainers
import pytest

pytestmark = pytest.mark.slow

STRATEGIES = {"auto": 1, "ddp": 2, "fsdp2": 2}


def see():
    """What one of two ranks sees with each strategy."""
    seen = {"auto": fit("auto")}
    _trainers.join_as_from_torchrun()
    return seen | {strategy: fit(strategy) for strategy in ("ddp", "fsdp2")}


def fit(strategy):
    import lightning_fsdp2

    seen = {"losses": []}

    class Seen(lightning_fsdp2.Repeater):
        def configure_model(self):
            with _trainers.counted() as asked:
                super().configure_model()
            seen["asked"] = sum(asked)
            seen["held"] = _trainers.local_bytes(self.net)
            seen["digest"] = lightning_fsdp2.digest(self.net)  # before Lightning sends anything to other ranks

        def on_train_batch_end(self, outputs, *_):
            seen["losses"].append(outputs["loss"].item())

    lightning_fsdp2.fit(Seen(), STRATEGIES[strategy], strategy)
    return seen


@pytest.fixture(scope="module")
def seen():
    return _ranks.run(2, see)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_has_the_same_weights(seen, strategy):
    assert {rank[strategy]["digest"] for rank in seen} == {_trainers.alone()}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_rank_asks_for_what_it_holds(seen, strategy):
    for rank in seen:
        assert rank[strategy]["asked"] == rank[strategy]["held"]


def test_fsdp2_divides_the_bytes(seen):
    shards = [rank["fsdp2"]["asked"] for rank in seen]
    assert sum(shards) == seen[0]["ddp"]["asked"] == seen[0]["auto"]["asked"]
    assert min(shards) > 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_trains(seen, strategy):
    for rank in seen:
        assert rank[strategy]["losses"] == pytest.approx(seen[0]["auto"]["losses"], rel=1e-3)
    assert seen[0]["auto"]["losses"][-1] < 0.1
