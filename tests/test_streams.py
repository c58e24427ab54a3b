"""Named random streams."""

from orca_sweep.streams import stream_rng, stream_seed, torch_stream


def test_streams_depend_on_their_name_alone_and_leave_the_global_generator_alone():
    import torch

    names = [("a", ()), ("b", ()), ("a", (1,)), ("a", (1, 2)), ("a", (12,))]
    assert len({stream_seed(seed, name, *i) for seed in (0, 1) for name, i in names}) == 10
    assert stream_rng(0, "a").random() == stream_rng(0, "a").random()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with torch_stream(0, "a"):
        first = torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())
    with torch_stream(0, "a"):
        assert torch.equal(first, torch.rand(3))
