"""What is chosen on val after a training. Needs torch: `scripts/setup --dev --train`."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training is an extra")

from training import choosing, views  # noqa: E402
from training.learn import normalise  # noqa: E402
from training.network import ConvNorm, Network, ShelfNet  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def noise(count: int, spread: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(128 - spread, 128 + spread, (70, 90, 3), dtype=np.uint8) for _ in range(count)]


class Sorts(Network):
    """Tells quiet pictures from loud ones by what a normalisation leaves of their spread."""

    def __init__(self) -> None:
        super().__init__()
        self.one = ConvNorm(3, 1, 1, 1)
        self.dropout = torch.nn.Identity()
        self.head = torch.nn.Linear(1, 2)
        with torch.no_grad():
            self.one.conv.weight.fill_(1.0)
            self.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
            self.head.bias.copy_(torch.tensor([0.8, -0.8]))

    def features(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        return [], self.one(x).abs().mean(dim=(2, 3))


def test_settling_takes_means_and_spreads_from_the_pictures_that_are_shown() -> None:
    network = ShelfNet(3).eval()
    before = copy.deepcopy(network.state_dict())
    batches = [np.stack([views.middle(one, 64) for one in noise(8, 90, seed)]) for seed in (1, 2)]
    settled = choosing.settled(network, iter(batches))
    with torch.no_grad():
        means = [network.stem.conv(normalise(batch)).mean(dim=(0, 2, 3)) for batch in batches]
    assert torch.allclose(settled.stem.norm.running_mean, (means[0] + means[1]) / 2, atol=1e-4)
    assert not settled.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_val_finds_out_that_normalisations_had_met_something_else() -> None:
    network = Sorts().eval()
    with torch.no_grad():
        network.one.norm.running_var.fill_(1e6)  # of pictures much louder than any: all look quiet
    photos = noise(40, 20, 1) + noise(40, 120, 2)
    val, labels = noise(30, 20, 3) + noise(30, 120, 4), np.repeat([0, 1], 30)
    chosen, best, tried = choosing.best_side(network, photos, val, labels, [64])
    assert [(one.side_px, one.norms) for one in tried] == [
        (64, choosing.AS_LEARNT),
        (64, choosing.VIEWS),
        (64, choosing.WHOLE),
    ]
    assert tried[0].accuracy == 0.5
    assert best.norms != choosing.AS_LEARNT
    assert best.accuracy > 0.9
    assert best.loss == min(one.loss for one in tried)
    assert (choosing.logits(chosen, val, 64).argmax(axis=1) == labels).mean() == best.accuracy
    again = choosing.best_side(network, photos, val, labels, [64])[2]
    assert again == tried


def test_a_network_without_normalisations_is_taken_as_it_is() -> None:
    network = Sorts().eval()
    network.one = torch.nn.Conv2d(3, 1, 1)
    tried = choosing.best_side(network, noise(4, 20, 1), noise(4, 20, 2), np.zeros(4, np.int64), [64, 96])[2]
    assert [(one.side_px, one.norms) for one in tried] == [(64, choosing.AS_LEARNT), (96, choosing.AS_LEARNT)]
