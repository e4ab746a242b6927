"""The frames of a video track that are worth a look: key frames, and what must be seen between.

One pass over the packets, without seeking, so that live recordings, files without an index and
truncated ones are read like any other. A key frame is decoded alone, from its one packet. The
frames up to the next key frame are decoded only where it is far away, where a packet is so large
that it must draw a new scene, or where the one who looks asks for a neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

MIN_STEP_S = 0.5  # between looks, where frames are cheap

_SPARSE = 1.5  # times every_s: key frames further apart than this are far
_STRETCH_BYTES = 2**27  # packets held at most, from one key frame to the next
_LEAST_SCENE_S = 1.0  # a scene that a key frame shows this soon is not looked for
_SPIKE_OVER_KEY, _SPIKE_OVER_USUAL = 0.4, 4.0

Frame = Any  # av.VideoFrame


class Packet(Protocol):
    """What is asked of av.Packet."""

    pts: int | None
    dts: int | None
    pos: int | None
    size: int
    duration: int | None
    is_keyframe: bool


class Decoder(Protocol):
    """What is asked of av.VideoCodecContext."""

    skip_frame: Any

    def decode(self, packet: Any = None) -> list[Any]: ...
    def flush_buffers(self) -> None: ...


@dataclass
class Track:
    """One track of an open video; its packets are read once."""

    packets: Iterator[Any]
    decoder: Decoder
    tick_s: float
    offset_s: float  # subtracted from the times in the file
    damage: type[Exception]  # what the two above raise for damaged data
    position_bytes: int = 0  # of the last packet read

    def seconds(self, timed: Packet | Frame) -> float | None:
        ticks = timed.dts if timed.pts is None else timed.pts
        return None if ticks is None else max(float(ticks * self.tick_s) - self.offset_s, 0.0)

    def read(self) -> Iterator[Packet]:
        """The packets up to the end of the file or to where it is damaged."""
        try:
            for packet in self.packets:
                self.position_bytes = max(self.position_bytes, packet.pos or 0)
                if packet.size:  # the last one is empty
                    yield packet
        except self.damage:
            return

    def decode(self, packet: Packet | None) -> list[Frame]:
        """The frames that come out when a packet goes in; none where it is damaged."""
        try:
            return self.decoder.decode(packet)
        except self.damage:
            return []

    def frames(self) -> Iterator[Frame]:
        """Every frame from here on, in the order of their times."""
        for packet in self.read():
            yield from self.decode(packet)
        yield from self.drain()

    def drain(self) -> list[Frame]:
        """The frames that the decoder held back; it starts anew afterwards."""
        frames = self.decode(None)
        self.decoder.flush_buffers()
        return frames


@dataclass
class Pace:
    """How densely to look; the one who looks changes it while the frames come."""

    step_s: float = MIN_STEP_S
    every_s: float = 10.0
    wants_neighbour: Callable[[], bool] = bool
    on_progress: Callable[[], object] = bool


@dataclass
class _Stretch:
    """Packets in the order of decoding, from a key frame up to the next one."""

    packets: list[Packet]
    begins_with_key: bool
    ends: Literal["key", "file", "limit"]  # limit: more of the same follows
    start_s: float
    end_s: float


def walk(track: Track, pace: Pace) -> Iterator[tuple[float, Frame]]:
    """Frames worth a look, with their times: key frames, and between them what is asked for."""
    last_s = -pace.step_s
    is_under_way = False  # the decoder has everything up to this stretch
    for stretch in _stretches(track, pace):
        pace.on_progress()
        times = _spikes(track, stretch)
        if stretch.begins_with_key:
            if stretch.ends == "key" and stretch.end_s < last_s + pace.step_s:
                continue  # key frames are dense
            alone = [*track.decode(stretch.packets[0]), *track.drain()]
            for frame in alone[:1]:
                time_s = track.seconds(frame)
                last_s = stretch.start_s if time_s is None else time_s
                yield last_s, frame
            if not alone:
                times.insert(0, stretch.start_s)
        elif stretch.ends == "key" and not is_under_way:
            continue  # the file begins in the middle of something
        is_long = stretch.ends != "key" and stretch.end_s - last_s > pace.every_s
        must_finish = stretch.ends == "limit" or not stretch.begins_with_key or is_long
        if times or must_finish or pace.wants_neighbour():
            for time_s, frame in _between(track, stretch, pace, times, last_s, must_finish):
                last_s = time_s
                yield time_s, frame
        is_under_way = stretch.ends == "limit"


def _between(
    track: Track,
    stretch: _Stretch,
    pace: Pace,
    times: list[float],
    last_s: float,
    must_finish: bool,
) -> Iterator[tuple[float, Frame]]:
    """Decodes on from the key frame; gives the frames at ``times``, and others a step apart."""
    track.decoder.skip_frame = "NONREF"  # no other frame needs these
    packets: list[Packet | None] = [*stretch.packets]
    if stretch.ends != "limit":
        packets.append(None)
    for packet in packets:
        for frame in track.drain() if packet is None else track.decode(packet):
            pace.on_progress()
            time_s = track.seconds(frame)
            if time_s is None:
                continue
            if (times and time_s >= times[0]) or time_s >= last_s + pace.step_s:
                times = [time for time in times if time > time_s]
                last_s = time_s
                yield time_s, frame
        if not times and not must_finish and not pace.wants_neighbour():
            break
    if stretch.ends != "limit":
        track.decoder.flush_buffers()
        track.decoder.skip_frame = "DEFAULT"


def _stretches(track: Track, pace: Pace) -> Iterator[_Stretch]:
    """Cuts the packets at key frames, and where there is none for too long or too many bytes."""
    packets: list[Packet] = []
    begins_with_key, held_bytes = False, 0
    start_s = end_s = 0.0
    for packet in track.read():
        time_s = track.seconds(packet)
        if time_s is None:
            time_s = end_s
        too_much = end_s - start_s > _SPARSE * pace.every_s or held_bytes > _STRETCH_BYTES
        if packets and (packet.is_keyframe or too_much):
            ends: Literal["key", "limit"] = "key" if packet.is_keyframe else "limit"
            yield _Stretch(packets, begins_with_key, ends, start_s, end_s)
            packets = []
        if not packets:
            begins_with_key, held_bytes, start_s, end_s = packet.is_keyframe, 0, time_s, time_s
        packets.append(packet)
        held_bytes += packet.size
        end_s = max(end_s, time_s)
    if packets:
        yield _Stretch(packets, begins_with_key, "file", start_s, end_s)


def _spikes(track: Track, stretch: _Stretch) -> list[float]:
    """Times of packets so large that they must draw a new scene, though it is no key frame."""
    sizes = [packet.size for packet in stretch.packets]
    usual = sorted(sizes[1:])[len(sizes[1:]) // 2] if len(sizes) > 1 else 0
    least = max(_SPIKE_OVER_USUAL * usual, _SPIKE_OVER_KEY * sizes[0])
    before = stretch.end_s - (_LEAST_SCENE_S if stretch.ends == "key" else 0.0)
    times: list[float] = []
    for packet in stretch.packets[1:]:
        time_s = track.seconds(packet)
        if packet.size < least or time_s is None or time_s > before:
            continue
        if time_s >= (times[-1] if times else stretch.start_s) + _LEAST_SCENE_S:
            times.append(time_s)
    return times
