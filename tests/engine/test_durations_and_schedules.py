import pytest

from frcnn.engine.durations import Duration
from frcnn.engine.schedules import WarmupCosine, WarmupMultiStep
from frcnn.errors import UserError


@pytest.mark.parametrize(
    ("text", "iterations"), [("90000it", 90000), ("12ep", 600), ("0.5ep", 25), ("0it", 0), ("0ep", 0)]
)
def test_durations_count_iterations_of_an_epoch_of_50(text, iterations):
    assert Duration.from_text(text).iterations(50) == iterations


@pytest.mark.parametrize("text", ["12", "12 epochs", "ep", "-3it", "1.5it", ""])
def test_other_texts_are_refused_with_both_forms_named(text):
    with pytest.raises(ValueError, match=r"12ep|whole"):
        Duration.from_text(text)


@pytest.mark.parametrize("text", ["90000it", "12ep", "0.25ep"])
def test_a_duration_prints_as_it_is_written(text):
    assert str(Duration.from_text(text)) == text


def test_multi_step_warms_up_on_a_line_and_drops_at_its_milestones():
    schedule = WarmupMultiStep(
        milestones=(Duration(8, "ep"), Duration(11, "ep")), warmup=Duration(10, "it"), warmup_factor=0.1
    )
    factors = [schedule(i, total=120, epoch_length=10) for i in range(120)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[5] == pytest.approx(0.55)  # half way from 0.1 to 1
    assert factors[10] == factors[79] == 1.0
    assert factors[80] == factors[109] == pytest.approx(0.1)
    assert factors[110] == factors[119] == pytest.approx(0.01)


def test_a_milestone_behind_the_end_is_never_reached():
    schedule = WarmupMultiStep(milestones=(Duration(500, "it"),), warmup=Duration(0, "it"))
    assert {schedule(i, total=100, epoch_length=10) for i in range(100)} == {1.0}


@pytest.mark.parametrize("milestones", ["0it", "8ep, 8ep", "11ep, 8ep", "8ep, 80it"])
def test_milestones_that_do_not_rise_are_refused_with_their_iterations(milestones):
    schedule = WarmupMultiStep(milestones=tuple(map(Duration.from_text, milestones.split(","))))
    with pytest.raises(UserError, match=f"must be above 0 and rise from one to the next, got {milestones}, which are"):
        schedule.check(total=120, epoch_length=10)


def test_milestones_and_a_warm_up_behind_the_end_are_reported_once(toy, caplog):
    milestones = (Duration(5, "it"), Duration(8, "it"), Duration(9, "it"))
    trainer = toy(schedule=WarmupMultiStep(milestones=milestones, warmup=Duration(8, "it")), duration="8it")
    trainer.train()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "ends after 8 iterations and never reaches schedule.milestones 8it, 9it; lower them" in caplog.text
    assert "warm-up (schedule.warmup=8it) lasts as long as the whole training of 8 iterations" in caplog.text


def test_a_schedule_that_fits_says_nothing(caplog):
    WarmupMultiStep(milestones=(Duration(8, "ep"),), warmup=Duration(10, "it")).check(total=120, epoch_length=10)
    WarmupCosine(warmup=Duration(10, "it")).check(total=120, epoch_length=10)
    assert not caplog.records


def test_cosine_is_one_half_at_half_time():
    schedule = WarmupCosine(warmup=Duration(0, "it"))
    assert schedule(0, total=100, epoch_length=10) == pytest.approx(1.0)
    assert schedule(50, total=100, epoch_length=10) == pytest.approx(0.5)
    assert 0 < schedule(99, total=100, epoch_length=10) < 0.001


def test_a_warm_up_as_long_as_the_training_stays_finite():
    schedule = WarmupCosine(warmup=Duration(100, "it"))
    assert all(0 <= schedule(i, total=20, epoch_length=10) <= 1 for i in range(20))


def test_warmup_factor_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"warmup_factor must be in \[0, 1\], got 3"):
        WarmupCosine(warmup_factor=3)
