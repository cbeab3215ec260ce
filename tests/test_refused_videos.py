"""Video files that are refused before anything of theirs, or anything they name, is decoded."""

import socket

import av
import pytest
from PIL import Image

from longreel.extract.video import Undecodable, open_video


@pytest.mark.parametrize("text", ["#EXTM3U\n#EXTINF:2,\n{0}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {0}\n"])
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat"])
def test_a_list_of_other_files_is_refused_and_they_are_not_opened(
    tmp_path, make_video, moving_frames, watch_opens, text, suffix
):
    canary = make_video(tmp_path / "canary.ts", moving_frames(10), format="mpegts")
    playlist = tmp_path / f"playlist{suffix}"
    playlist.write_text(text.format(canary.name))
    opened = watch_opens(canary)
    with pytest.raises(Undecodable):
        open_video(str(playlist))
    assert not opened()


def test_the_lists_of_other_files_would_otherwise_be_followed(tmp_path, make_video, moving_frames, watch_opens):
    canary = make_video(tmp_path / "canary.ts", moving_frames(10), format="mpegts")
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile canary.ts\n")
    opened = watch_opens(canary)
    with av.open(str(tmp_path / "list.ffconcat")) as container:
        assert len(list(container.decode(video=0))) == 10
    assert opened()


@pytest.mark.parametrize("address", ["http://127.0.0.1:{0}/a.mp4", "tcp://127.0.0.1:{0}", "concat:{1}|{1}", "file:{1}"])
def test_an_address_is_no_file_and_nothing_is_asked_for_it(tmp_path, make_video, moving_frames, address):
    clip = make_video(tmp_path / "clip.ts", moving_frames(5), format="mpegts")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        with pytest.raises(Undecodable, match="no such file"):
            open_video(address.format(server.getsockname()[1], clip))
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_frame_too_large_to_decode_is_refused_by_its_header(tmp_path):
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    with pytest.raises(Undecodable, match="frames of 9000x9000 are too large"):
        open_video(str(tmp_path / "bomb.png"))
