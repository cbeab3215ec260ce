import csv
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from longreel.extract.decoders import DECODERS, choose_decoder, decode_frames
from longreel.extract.preprocessing import Preprocessing
from longreel.extract.sampling import Sampling
from longreel.extract.video import Undecodable, Video, choose_frames, open_video
from longreel.extract.workers import Decoded, DecodeSettings, DecodeTask, Failed, Frames, Restarted, decode_clips

EVERY_FRAME = Sampling(fps=1000)
Pixels = NDArray[np.uint8]


def decode_all(path: Path) -> list[Pixels]:
    """Every frame from first to last by PyAV alone, as stored: neither turned nor cut by anything of ours."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        return [np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8) for frame in container.decode(stream)]


def decode(video: Video, decoder: str, wanted: NDArray[np.int64]) -> dict[int, Pixels]:
    """Table index -> pixels, checked to come once each, in time order."""
    order, frames = [], {}
    for frame in decode_frames(video, decoder, wanted):
        order.append(frame.index)
        frames[frame.index] = frame.pixels
    assert order == sorted(set(order))
    return frames


def assert_frames_are(got: dict[int, Pixels], all_frames: list[Pixels], wanted: NDArray[np.int64]) -> None:
    wrong = [i for i in wanted.tolist() if i not in got or not np.array_equal(got[i], all_frames[i])]
    assert wrong == [], f"wrong or missing frames: {wrong}"


@pytest.fixture(scope="module")
def awkward(shared_data) -> Path:
    return shared_data / "videos" / "awkward"


@pytest.fixture(scope="module")
def expected(awkward) -> dict[str, dict[str, str]]:
    with open(awkward / "expected.csv", encoding="utf-8", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def outcomes(awkward, expected) -> dict[str, tuple[Decoded | Failed, int]]:
    """File -> how its decoding in a worker ended, and how many frames came."""
    tasks = [DecodeTask(name, str(awkward / name)) for name in expected]
    frames: dict[str, int] = {}
    ends: dict[str, tuple[Decoded | Failed, int]] = {}
    for event in decode_clips(tasks, DecodeSettings(EVERY_FRAME, Preprocessing(8, 8)), workers=1):
        match event:
            case Frames(name, pixels):
                frames[name] = frames.get(name, 0) + len(pixels)
            case Restarted(name):
                frames[name] = 0
            case _:
                assert event.clip_id not in ends
                ends[event.clip_id] = event, frames.get(event.clip_id, 0)
    return ends


def status_of(event: Decoded | Failed) -> str:
    if isinstance(event, Failed):
        return "failed"
    return "ok" if event.fraction == 1.0 else "partial"


def test_every_awkward_file_ends_as_expected(expected, outcomes):
    ends = {name: status_of(event) for name, (event, _) in outcomes.items()}
    assert ends.keys() == expected.keys()
    wrong = {name: status for name, status in ends.items() if status not in expected[name]["status"].split("|")}
    assert wrong == {}


def test_every_awkward_file_gives_as_many_frames_as_it_has(expected, outcomes):
    counts = {name: count for name, (event, count) in outcomes.items() if status_of(event) != "failed"}
    wanted = {name: int(expected[name]["frames"]) for name in counts if expected[name]["frames"]}
    assert {name: counts[name] for name in wanted} == wanted
    partial = [name for name, (event, _) in outcomes.items() if status_of(event) == "partial"]
    assert all(counts[name] > 0 for name in partial)


def test_every_awkward_file_is_upright_and_of_its_size(awkward, expected, outcomes):
    sizes = {}
    for name, (event, _) in outcomes.items():
        if isinstance(event, Decoded):
            video = open_video(str(awkward / name))
            height, width = decode(video, event.decoder, np.array([0]))[0].shape[:2]
            sizes[name] = str(width), str(height)
    assert sizes == {name: (expected[name]["width"], expected[name]["height"]) for name in sizes}


def test_a_failure_says_why(outcomes):
    reasons = {name: event.reason for name, (event, _) in outcomes.items() if isinstance(event, Failed)}
    assert reasons["audio_only.mp4"] == "no video stream"
    assert reasons["dir_named.mp4"] == "a folder, not a file"
    assert all("Traceback" not in reason for reason in reasons.values())


def test_every_awkward_file_ends_within_its_deadline(outcomes):
    reasons = [event.reason for event, _ in outcomes.values() if isinstance(event, Failed)]
    assert reasons
    assert not [reason for reason in reasons if "deadline" in reason]


def test_the_fraction_of_a_truncated_file_is_what_is_left_of_it(outcomes):
    event, count = outcomes["truncated.avi"]
    assert isinstance(event, Decoded)
    assert event.fraction == pytest.approx(count / 64, abs=0.02)


def test_wherever_decord_may_be_taken_it_gives_the_pixels_of_pyav(shared_data, awkward, expected):
    clips = sorted((shared_data / "videos").glob("[st]*/*/*"))[::25][:4]
    compared = []
    for path in [*clips, *(awkward / name for name in expected if expected[name]["status"] == "ok")]:
        video = open_video(str(path))
        if "decord" in choose_decoder(video, "auto"):
            wanted = np.arange(0, len(video.seconds), 9)
            ours, theirs = decode(video, "pyav", wanted), decode(video, "decord", wanted)
            assert ours.keys() == theirs.keys()
            assert all(np.array_equal(ours[index], theirs[index]) for index in ours), path.name
            compared.append(path.name)
    assert len(compared) >= 10
    assert {"rotated_90.mp4", "rotated_180.mp4", "decord_video_90.mov"} <= set(compared)


@pytest.mark.parametrize(("name", "turns"), [("rotated_90.mp4", 1), ("rotated_180.mp4", 2)])
def test_rotated_frames_are_turned_as_the_file_says(awkward, name, turns):
    video = open_video(str(awkward / name))
    stored = decode_all(awkward / name)[7]
    np.testing.assert_array_equal(decode(video, "pyav", np.array([7]))[7], np.rot90(stored, turns))


#: name -> codec, container, encoder options. Open groups of pictures show frames that a jump to their keyframe lacks.
STREAMS = {
    "h264-mp4": ("libx264", "mp4", {"g": "30"}),
    "h264-mp4-short-groups": ("libx264", "mp4", {"g": "3", "bf": "2"}),
    "h264-mp4-open-groups": ("libx264", "mp4", {"g": "15", "bf": "3", "x264-params": "open-gop=1"}),
    "h264-avi-b-frames": ("libx264", "avi", {"g": "15"}),
    "h264-mkv": ("libx264", "matroska", {"g": "15"}),
    "h264-ts": ("libx264", "mpegts", {"g": "15"}),
    "hevc-mp4-open-groups": ("libx265", "mp4", {"g": "15", "x265-params": "log-level=none"}),
    "mpeg4-mp4-open-groups": ("mpeg4", "mp4", {"g": "12", "bf": "2"}),
    "mpeg2-mkv-open-groups": ("mpeg2video", "matroska", {"g": "12", "bf": "2"}),
    "mpeg2-mpg": ("mpeg2video", "mpeg", {"g": "12", "bf": "2"}),
    "vp9-webm": ("libvpx-vp9", "webm", {"g": "30", "cpu-used": "8", "deadline": "realtime"}),
}


@pytest.mark.parametrize(("codec", "format", "options"), STREAMS.values(), ids=STREAMS)
def test_sparse_frames_have_the_pixels_that_decoding_from_the_start_gives(
    tmp_path, make_video, moving_frames, codec, format, options
):
    path = make_video(tmp_path / "clip", moving_frames(150), codec=codec, format=format, options=options)
    video, naive = open_video(str(path)), decode_all(path)
    assert len(video.seconds) == len(naive) == 150
    np.testing.assert_allclose(video.seconds, np.arange(150) / 25, atol=0.002)
    for decoder in {"pyav", *choose_decoder(video, "auto")}:
        for wanted in (np.arange(0, 150, 7), np.array([149]), np.array([3, 60, 61, 120])):
            try:
                got = decode(video, decoder, wanted)
            except Undecodable:
                assert decoder == "decord", "PyAV is the last resort"  # and auto then turns to PyAV
            else:
                assert_frames_are(got, naive, wanted)


def test_a_file_without_an_index_is_decoded_all_the_same(tmp_path, make_video, moving_frames):
    whole, path = make_video(tmp_path / "whole.mkv", moving_frames(60), format="matroska"), tmp_path / "clip.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w", format="matroska") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream, packet.is_keyframe = stream, False
                target.mux(packet)
    naive, video = decode_all(whole), open_video(str(path))
    for wanted in (np.arange(0, 60, 7), np.array([55])):
        assert_frames_are(decode(video, "pyav", wanted), naive, wanted)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi"])
def test_a_file_is_opened_once_where_it_can_be_rewound(tmp_path, make_video, moving_frames, monkeypatch, name):
    format = {"mp4": "mp4", "mkv": "matroska", "avi": "avi"}[name[-3:]]
    path, opened, real = make_video(tmp_path / name, moving_frames(30), format=format), [], av.open
    monkeypatch.setattr(av, "open", lambda *given, **options: opened.append(given) or real(*given, **options))
    decode(open_video(str(path)), "pyav", np.arange(0, 30, 4))
    assert len(opened) == (2 if name == "clip.avi" else 1)


def test_frames_of_a_variable_rate_keep_their_times(tmp_path, make_video, moving_frames):
    ticks = [0, 40, 80, 500, 520, 1000, 1010, 2000]
    path = make_video(tmp_path / "vfr.mp4", moving_frames(8), ticks=ticks)
    video = open_video(str(path))
    np.testing.assert_allclose(video.seconds, np.array(ticks) / 1000, atol=1e-3)
    assert not video.steady
    assert choose_decoder(video, "auto") == ["pyav"]
    wanted = choose_frames(video, Sampling(fps=4), None, None)  # 0, .25, .5, .75, 1, ... seconds
    assert wanted.frames.tolist() == [0, 2, 3, 4, 5, 6, 7]
    assert_frames_are(decode(video, "pyav", wanted.frames), decode_all(path), wanted.frames)


def test_the_decoders_times_are_the_files(awkward):
    with av.open(str(awkward / "vfr.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    video = open_video(str(awkward / "vfr.mp4"))
    np.testing.assert_allclose(video.seconds, np.array(times) - times[0], atol=1e-6)


def test_frames_that_an_edit_list_hides_are_left_out(awkward):
    path = awkward / "editlist_cut_copy.mp4"
    video, naive = open_video(str(path)), decode_all(path)
    assert len(video.seconds) == len(naive) == 39
    assert video.seconds[0] == 0
    assert choose_decoder(video, "auto") == ["pyav"]
    assert_frames_are(decode(video, "pyav", np.arange(39)), naive, np.arange(39))


@pytest.mark.parametrize(
    ("start", "end", "frames"),
    [(None, None, range(100)), (1.0, 2.0, range(25, 50)), (3.0, None, range(75, 100)), (None, 0.04, [0])],
)
def test_a_span_has_its_first_frame_and_not_its_end(tmp_path, make_video, moving_frames, start, end, frames):
    video = open_video(str(make_video(tmp_path / "clip.mp4", moving_frames(100))))
    wanted = choose_frames(video, Sampling(fps=25), start, end)
    assert wanted.frames.tolist() == list(frames)
    assert wanted.present == 1.0


@pytest.mark.parametrize(("b_frames", "first"), [("0", "decord"), ("2", "pyav")])
def test_pyav_is_first_where_it_can_leave_frames_out(tmp_path, make_video, moving_frames, b_frames, first):
    path = make_video(tmp_path / "clip.mp4", moving_frames(50), options={"g": "25", "bf": b_frames})
    decoders = choose_decoder(open_video(str(path)), "auto")
    assert decoders[0] == first
    assert set(decoders) == {"decord", "pyav"}


def test_a_long_video_is_left_to_pyav_whose_memory_does_not_grow_with_it(tmp_path, make_video, moving_frames):
    video = open_video(str(make_video(tmp_path / "clip.mp4", moving_frames(50), options={"bf": "0"})))
    assert choose_decoder(video, "auto") == ["decord", "pyav"]
    assert choose_decoder(replace(video, duration=601.0), "auto") == ["pyav"]
    assert choose_decoder(replace(video, duration=601.0), "decord") == ["decord"]


@pytest.mark.parametrize(
    ("sampling", "start", "end", "frames"),
    [
        (Sampling(frames=3, keyframes=True), None, None, [20, 50, 80]),
        (Sampling(fps=25, keyframes=True), None, None, range(0, 100, 10)),
        (Sampling(fps=25, keyframes=True), 1.0, 2.0, [30, 40]),
        (Sampling(fps=25, keyframes=True), 0.44, 0.56, [11, 12, 13]),  # a span without keyframe keeps its own frames
    ],
    ids=["sparse", "dense", "span", "none in the span"],
)
def test_at_keyframes_only_frames_stored_whole_are_taken(
    tmp_path, make_video, moving_frames, sampling, start, end, frames
):
    options = {"g": "10", "keyint_min": "10", "sc_threshold": "0"}
    path = make_video(tmp_path / "clip.mp4", moving_frames(100), options=options)
    video = open_video(str(path))
    wanted = choose_frames(video, sampling, start, end).frames
    assert wanted.tolist() == list(frames)
    assert_frames_are(decode(video, "pyav", wanted), decode_all(path), wanted)


def test_a_span_past_the_end_is_refused(tmp_path, make_video, moving_frames):
    video = open_video(str(make_video(tmp_path / "clip.mp4", moving_frames(50))))
    with pytest.raises(Undecodable, match=r"the span begins at 2\.5 s, the video ends at 2\.000 s"):
        choose_frames(video, Sampling(frames=4), 2.5, 3.0)


def test_a_short_clip_gives_no_frame_twice(tmp_path, make_video, moving_frames):
    video = open_video(str(make_video(tmp_path / "clip.mp4", moving_frames(3))))
    assert choose_frames(video, Sampling(frames=16), None, None).frames.tolist() == [0, 1, 2]


def test_a_forced_decoder_is_the_only_one_tried(tmp_path, make_video, moving_frames):
    video = open_video(str(make_video(tmp_path / "clip.mp4", moving_frames(5))))
    assert {name: choose_decoder(video, name) for name in DECODERS} == {"decord": ["decord"], "pyav": ["pyav"]}
