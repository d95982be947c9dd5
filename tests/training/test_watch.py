"""The profile of a step, as a GPU gives it."""

from types import SimpleNamespace

from fastcutpaste.training.watch import StepProfile


def test_a_profile_adds_host_and_device_and_lists_no_part_as_an_operator(tmp_path):
    """As a GPU gives them: each part once for the host and once for the device, annotated there."""

    def event(key, host=0, device=0, own=0, annotation=False):
        return SimpleNamespace(
            key=key, cpu_time_total=host, device_time_total=device, self_cpu_time_total=host,
            self_device_time_total=own, is_user_annotation=annotation,
        )  # fmt: skip

    events = [
        event("backward", host=5_000),
        event("backward", device=40_000, own=40_000, annotation=True),
        event("aten::mm", host=1_000, own=20_000),
        event("a_kernel", own=15_000),
    ]
    measured = SimpleNamespace(key_averages=lambda: events, export_chrome_trace=lambda _: None)
    StepProfile(tmp_path)._write(measured)
    told = [line.rsplit(maxsplit=2) for line in (tmp_path / "summary.txt").read_text().splitlines()[1:]]
    assert [(name.strip(), float(host), float(device)) for name, host, device in told] == [
        ("backward", 1.0, 8.0), ("aten::mm", 0.2, 4.0), ("a_kernel", 0.0, 3.0),
    ]  # fmt: skip
