"""Constants of the links from measured curves: how near they come, and files that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gigafactory.errors import UserError
from gigafactory.twin.constants import default, shipped
from gigafactory.twin.curves import LINKS, fit_curves, read_curves

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "nccl_busbw.csv"
published = pytest.mark.skipif(not PUBLISHED.exists(), reason="the table of published curves is not on this machine")
HEADER = "collective,system,n_gpus,n_nodes,size_bytes,time_us\n"
ROW = "all_reduce,H100 node,8,1,1073741824,4029\n"
CURVES = default().replace(**{name: shipped()[name].prior for name in LINKS})


@published
def test_the_links_priors_come_near_published_curves(capsys: pytest.CaptureFixture[str]) -> None:
    """Five systems, one set of constants: 75 points of 1 MB and more, median 5 %, the worst 40 % at 1 to 8 MB."""
    curves = read_curves(PUBLISHED)
    assert len(curves.seconds) == 112
    error = np.abs(curves.predicted(CURVES) / curves.seconds - 1)
    counted, large = error[curves.counted], error[curves.size_bytes >= 2**24]
    with capsys.disabled():
        print(
            f"\ncollectives: {len(counted)} points of 1 MB and more: median {np.median(counted):.3f}, max"
            f" {counted.max():.3f}; of 16 MB and more: median {np.median(large):.3f}, max {large.max():.3f}"
        )
    assert np.median(counted) < 0.06
    assert counted.max() < 0.45
    assert np.median(large) < 0.04
    assert large.max() < 0.2


@published
def test_a_fit_finds_the_links_again_from_a_wrong_start() -> None:
    wrong = CURVES.replace(scaleup_share=0.7, scaleout_share=0.85, scaleout_hop_s=2e-5, ramp_s=7e-5)
    found = fit_curves(PUBLISHED, wrong)
    assert set(found.constants) <= set(LINKS)
    assert found.constants["scaleup_share"] == pytest.approx(CURVES.scaleup_share, rel=0.05)
    assert found.constants["scaleout_share"] == pytest.approx(CURVES.scaleout_share, rel=0.1)
    assert found.points == 75
    assert found.median_error < 0.05
    assert len(found.rows) == 5


def test_a_curve_of_one_machine_moves_only_what_it_tells(tmp_path: Path) -> None:
    """A node whose links reach 60 % says nothing of the network between nodes."""
    sizes = 2.0 ** np.arange(20, 35)
    seconds = 7 / 8 * sizes / (0.6 * 450e9) + 1e-5
    rows = [f"all-gather,H100 node,8,1,{size:.0f},{1e6 * t}\n" for size, t in zip(sizes, seconds, strict=True)]
    path = tmp_path / "own.csv"
    path.write_text(HEADER + "".join(rows))
    found = fit_curves(path, CURVES)
    assert found.constants["scaleup_share"] == pytest.approx(0.6, rel=0.02)
    assert not {"scaleout_share", "scaleout_hop_s", "switch_bytes_per_s"} & set(found.constants)


def test_cards_and_chips_are_read_from_the_system(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    path.write_text(
        "gpu," + HEADER + f",{ROW}A100,{ROW}" + ',AllGather,"4 nodes x8 B200, 8x200G/node",32,4,2097152,900\n'
    )
    curves = read_curves(path)
    np.testing.assert_allclose(curves.machine.domain_bytes_per_s, [450e9, 300e9, 900e9])
    np.testing.assert_allclose(curves.machine.nic_bytes_per_s, [50e9, 25e9, 25e9])
    assert curves.kinds == ["all-reduce", "all-reduce", "all-gather"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "needs a header and at least one row"),
        ("collective,system\nall_reduce,H100\n", "n_gpus: column is missing"),
        (HEADER + ROW + ROW.replace("4029", "-1"), "row 3: time_us: must be a number above 0, got '-1'"),
        (HEADER + ROW.replace("1073741824", "1 GB"), "row 2: size_bytes: must be a number above 0, got '1 GB'"),
        (HEADER + ROW.replace("all_reduce", "broadcast"), "row 2: collective: must be one of"),
        (HEADER + ROW.replace("H100", "H1O0"), "row 2: system: no chip"),
        (HEADER + ROW.replace(",8,1,", ",8,3,"), "row 2: n_gpus: must be at least 2 and the same on each node"),
        (HEADER + ROW.replace("1073741824", "1024"), "size_bytes: needs messages of 1048576 bytes or more"),
        (HEADER + "all_reduce,H100\n", "row 2: n_gpus: must be a number above 0, got None"),
    ],
)
def test_a_bad_file_is_one_line_with_row_and_column(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "curves.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        fit_curves(path, CURVES)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
