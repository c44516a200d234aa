"""`Client.visit`: pieces of many tensors, in any order."""

import numpy as np
import pytest

import seedbed


def test_more_tensors_than_a_request_may_hold(start_server):
    handle = start_server(max_tensors=1000)
    specs = [seedbed.spec("constant", (2,), val=i, name=f"t{i}") for i in range(2500)]
    found = np.zeros((2500, 2))

    def use(index, first, values):
        found[index, first : first + len(values)] = values

    with seedbed.connect(handle.target) as client:
        client.visit(specs, use)
        assert (found == np.arange(2500)[:, None]).all()
        specs[2100] = seedbed.spec("normal", (2,), std=-1, name="bad")
        with pytest.raises(seedbed.InvalidRequest, match=r"tensors\[2100\].*std"):
            client.visit(specs, use)
