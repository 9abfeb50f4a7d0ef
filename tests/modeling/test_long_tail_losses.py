"""Seesaw, federated and equalization losses."""

import math
import socket

import pytest
import torch
import torch.multiprocessing as mp

from frcnn.modeling.losses import BinaryCrossEntropy, EqualizationLoss, FederatedLoss, SeesawLoss, SoftmaxCrossEntropy
from frcnn.modeling.modes import unobserved

BACKGROUND = 3


def seesaw(counts, **options):
    loss = SeesawLoss(3, **options).eval()
    loss.class_counts += torch.tensor(counts)
    return loss


def test_seesaw_without_factors_is_two_softmaxes():
    loss = seesaw([0, 0, 0], p=0.0, q=0.0)
    logits = torch.tensor([[math.log(2), 0.0, 0.0, math.log(3), 0.0]]).repeat(2, 1)
    assert loss.num_logits == 5
    # An object of class 0 has probability 1/2 among the classes, and 3/4 of being one; background has 1/4.
    values = loss(logits, torch.tensor([0, BACKGROUND]))
    torch.testing.assert_close(values, torch.tensor([math.log(4 / 3) + math.log(2), math.log(4)]))
    torch.testing.assert_close(loss.scores(logits)[0], torch.tensor([3 / 8, 3 / 16, 3 / 16]))


def test_seesaw_mitigation_by_hand():
    # 400, 100 and 25 objects: with p = 0.5, class 0 pushes class 1 by sqrt(1/4) and class 2 by sqrt(1/16); class 2 none less.
    loss = seesaw([400, 100, 25], p=0.5, q=0.0)
    values = loss(torch.zeros(2, 5), torch.tensor([0, 2]))
    torch.testing.assert_close(values, torch.tensor([math.log(1 + 1 / 2 + 1 / 4), math.log(3)]) + math.log(2))


def test_seesaw_compensation_by_hand():
    # Scores 1/4, 1/2, 1/4: class 1 is twice the true class 0, so its part counts (2)^2 times: 1 + 4 * 2 + 1 over 1.
    loss = seesaw([0, 0, 0], p=0.0, q=2.0)
    value = loss(torch.tensor([[0.0, math.log(2), 0.0, 0.0, 0.0]]), torch.tensor([0]))
    torch.testing.assert_close(value, torch.tensor([math.log(10) + math.log(2)]))


def test_seesaw_counts_in_training_only_and_keeps_the_counts_in_checkpoints():
    loss = SeesawLoss(3)
    classes = torch.tensor([0, 2, 2, BACKGROUND])
    loss(torch.zeros(4, 5), classes)
    loss(torch.zeros(4, 5), classes)
    with unobserved(loss):
        loss(torch.zeros(4, 5), classes)
    loss.eval()(torch.zeros(4, 5), classes)
    assert loss.class_counts.tolist() == [2, 0, 4]
    again = SeesawLoss(3)
    again.load_state_dict(loss.state_dict())
    assert again.class_counts.tolist() == [2, 0, 4]


def test_seesaw_is_finite_where_one_class_takes_it_all():
    loss = seesaw([1, 10**9, 1])
    logits = torch.tensor([[-100.0, 100.0, 0.0, 0.0, 0.0]], requires_grad=True)
    for wanted in (0, 1, 2):
        loss(logits, torch.tensor([wanted])).sum().backward()
    assert logits.grad.isfinite().all()


def test_equalization_by_hand():
    # All probabilities are 1/2. Classes 0 and 2 are of the tail: an object of class 1 pushes neither.
    loss = EqualizationLoss(3, class_counts=(99, 100, 0))
    values = loss(torch.zeros(3, 3), torch.tensor([1, 0, BACKGROUND]))
    torch.testing.assert_close(values, torch.tensor([1.0, 2.0, 3.0]) * math.log(2))
    none_rare = EqualizationLoss(3, class_counts=(99, 100, 0), tail_below=0)
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 1, 2, BACKGROUND])
    torch.testing.assert_close(none_rare(logits, classes), BinaryCrossEntropy(3)(logits, classes))


def test_federated_counts_what_is_present_and_as_many_as_asked_for():
    loss = FederatedLoss(100, num_sampled=10)
    present = torch.zeros(100, dtype=torch.bool)
    present[[3, 50]] = True
    counting = loss.counting_classes(present)
    assert counting.sum() == 10
    assert counting[present].all()
    assert loss.counting_classes(torch.ones(100, dtype=torch.bool)).all()
    assert FederatedLoss(3, num_sampled=50).counting_classes(present[:3]).all()
    # With logits 0, each counting class costs log 2.
    torch.testing.assert_close(loss(torch.zeros(1, 100), torch.tensor([3])), torch.tensor([10 * math.log(2)]))


def test_federated_draws_by_the_counts():
    # Counts 1 and 9 with power 0.5 are chances 1 : 3; a class that the training set does not have is never drawn.
    loss = FederatedLoss(3, num_sampled=1, class_counts=(1, 9, 0))
    nothing = torch.tensor([BACKGROUND])
    times = torch.zeros(3)
    for _ in range(1000):
        times += loss.counting_classes(torch.zeros(3, dtype=torch.bool))
        loss(torch.zeros(1, 3), nothing)
    assert times[2] == 0
    assert abs(times[1] - 750) < 70  # the standard deviation is 14
    assert FederatedLoss(3, num_sampled=3, class_counts=(1, 9, 0)).counting_classes(torch.zeros(3).bool()).sum() == 2


def test_federated_draws_are_keyed():
    torch.manual_seed(0)
    loss = FederatedLoss(1000)
    state = torch.get_rng_state()
    nothing = torch.zeros(1000, dtype=torch.bool)
    first = loss.counting_classes(nothing)
    with unobserved(loss):
        loss(torch.zeros(1, 1000), torch.tensor([1000]))
    assert torch.equal(loss.counting_classes(nothing), first)
    saved = {name: value.clone() for name, value in loss.state_dict().items()}
    loss(torch.zeros(1, 1000), torch.tensor([1000]))
    second = loss.counting_classes(nothing)
    assert not torch.equal(second, first)
    assert torch.equal(torch.get_rng_state(), state)
    loss.load_state_dict(saved)
    assert torch.equal(loss.counting_classes(nothing), first)
    torch.manual_seed(0)
    assert torch.equal(FederatedLoss(1000).counting_classes(nothing), first)


def test_federated_never_reads_a_number_back_from_the_device(monkeypatch):
    loss = FederatedLoss(100)

    def refuse(tensor):
        raise AssertionError("the host would wait for the device")

    for name in ("__int__", "__float__", "__bool__", "__index__", "item", "tolist"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    loss(torch.zeros(2, 100), torch.tensor([3, 100]))


def test_federated_draws_go_on_from_a_checkpoint():
    nothing = torch.zeros(1, 1000), torch.tensor([1000])
    whole = FederatedLoss(1000)
    for _ in range(3):
        whole(*nothing)
    torch.manual_seed(1)
    resumed = FederatedLoss(1000)
    assert resumed.draws != whole.draws
    resumed.load_state_dict(whole.state_dict())
    for _ in range(3):
        present = torch.zeros(1000, dtype=torch.bool)
        assert torch.equal(whole.counting_classes(present), resumed.counting_classes(present))
        assert whole(*nothing) == resumed(*nothing)
    assert resumed.draws == whole.draws
    with torch.device("meta"):
        assert FederatedLoss(1000).state_dict()["_extra_state"].is_meta


def _in_process(rank, port, results):
    torch.distributed.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank, world_size=2)
    torch.manual_seed(0)
    federated, seesaw_loss = FederatedLoss(20, num_sampled=5), SeesawLoss(20)
    classes = torch.tensor([[0, 20], [7, 7]])[rank]
    federated(torch.zeros(2, 20), classes)
    seesaw_loss(torch.zeros(2, 22), classes)
    results[rank] = (federated.counting_classes(torch.zeros(20).bool()), seesaw_loss.class_counts)
    torch.distributed.destroy_process_group()


def test_two_processes_count_and_draw_what_one_would():
    with socket.socket() as free, mp.get_context("spawn").Manager() as manager:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
        free.close()
        results = manager.dict()
        mp.spawn(_in_process, args=(port, results), nprocs=2)
        (drawn, counts), (drawn_too, counts_too) = results[0], results[1]
    torch.manual_seed(0)
    alone, seesaw_alone = FederatedLoss(20, num_sampled=5), SeesawLoss(20)
    classes = torch.tensor([0, 20, 7, 7])
    alone(torch.zeros(4, 20), classes)
    seesaw_alone(torch.zeros(4, 22), classes)
    expected = alone.counting_classes(torch.zeros(20).bool())
    assert torch.equal(drawn, expected) and torch.equal(drawn_too, expected)
    assert torch.equal(counts, seesaw_alone.class_counts) and torch.equal(counts_too, seesaw_alone.class_counts)


def test_seesaw_trains_like_softmax_where_classes_are_balanced():
    loss = seesaw([7, 7, 7], q=0.0)
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 1, 2, 0])
    expected = torch.nn.functional.cross_entropy(logits[:, :3], classes, reduction="none")
    expected += SoftmaxCrossEntropy(1)(logits[:, 3:], torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(loss(logits, classes), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SeesawLoss(3, p=-1.0), "p and q must be at least 0, got -1.0 and 2.0"),
        (lambda: FederatedLoss(3, num_sampled=0), "num_sampled must be at least 1, got 0"),
        (lambda: FederatedLoss(3, power=-1.0), "power must be at least 0, got -1.0"),
        (lambda: FederatedLoss(3, class_counts=(1, 2)), "class_counts must be 3 numbers, one a class, got 2"),
        (lambda: EqualizationLoss(2, class_counts=(1, -2)), "class_counts must be at least 0, got -2"),
        (lambda: EqualizationLoss(2, class_counts=(1, 2), tail_below=-1), "tail_below must be at least 0, got -1"),
    ],
)
def test_options_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
