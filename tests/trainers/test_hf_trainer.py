"""Hugging Face's Trainer: `model_init` makes the same model whenever the Trainer calls it."""

import _trainers
import pytest
import torch

import seedbed
import seedbed.torch

pytestmark = pytest.mark.slow


@pytest.fixture
def fitted(tmp_path):
    """Trains twice with one Trainer; tells the weights that each began with, and the losses of each."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    config = GPT2Config(
        n_layer=1, n_embd=16, n_head=2, vocab_size=20, n_positions=8, bos_token_id=0, eos_token_id=0, resid_pdrop=0
    )

    class Watch(TrainerCallback):
        def on_train_begin(self, *_, model, **__):
            begun.append(_trainers.digest(model))

        def on_log(self, *_, logs, **__):
            if "loss" in logs:
                losses.append(logs["loss"])

    def make():
        return GPT2LMHeadModel(config)

    def model_init():
        with seedbed.connect("local:") as client:
            return seedbed.torch.build(make, client, seed=7)

    begun, losses = [], []
    data = [{"input_ids": torch.arange(8) + i, "labels": torch.arange(8) + i} for i in range(8)]
    arguments = TrainingArguments(
        tmp_path, max_steps=4, learning_rate=0.02, logging_steps=1, save_strategy="no", use_cpu=True, report_to="none",
        disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model_init=model_init, args=arguments, train_dataset=data, callbacks=[Watch()])
    trainer.train()
    arguments.seed = 43  # of the order of data, and of what torch draws
    trainer.train()
    with seedbed.connect("local:") as client:
        whole = GPT2LMHeadModel(config)
        seedbed.torch.init_module(whole, client, model=seedbed.torch.record(make, seed=7))
    return begun, losses, _trainers.digest(whole)


def test_each_trial_begins_with_the_same_weights(fitted):
    begun, losses, expected = fitted
    assert begun == [expected, expected]
    assert len(losses) == 8
    assert losses[3] < losses[0]
    assert losses[7] < losses[4]
