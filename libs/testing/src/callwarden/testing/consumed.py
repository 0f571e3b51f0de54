"""Whether a consumer of JetStream has done all that its stream holds."""

from nats.js.errors import NotFoundError

from callwarden.common.bus import Bus, Stream


async def consumed(bus: Bus, stream: Stream, durable: str) -> bool:
    """Whether it has acknowledged every event that the stream had when this was called. Raises nats errors.

    By the stream's last sequence, not by the consumer's count of what is pending: NATS acknowledges an event to its
    publisher before its consumers count it, so that for a moment the count says that nothing is left.
    """
    subject = (await bus.jetstream.consumer_info(stream.value, durable)).config.filter_subject or ">"
    try:
        last = await bus.jetstream.get_last_msg(stream.value, subject)
    except NotFoundError:
        return True
    info = await bus.jetstream.consumer_info(stream.value, durable)
    return info.ack_floor is not None and (info.ack_floor.stream_seq or 0) >= (last.seq or 0)
