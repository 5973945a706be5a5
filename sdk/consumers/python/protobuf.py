"""Protobuf as far as feed.proto needs it, read from feed.proto itself, so that no generated code can be out of step.

In: the text of feed.proto; bytes, or a dict. Out: a dict with every field of the message, absent ones as 0, "" or [];
or bytes. Unknown fields are passed over, as FORMAT.md asks. It checks lengths, and nothing else.
"""

import re

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


class Malformed(Exception):
    """These bytes are no such message."""


class Field:
    def __init__(self, kind, name, number, repeated):
        self.kind, self.name, self.number, self.repeated = kind, name, number, repeated


def schema(text):
    """Messages of a .proto file by name: the fields by their number."""
    text = re.sub(r"//[^\n]*", "", text)
    enums = set(re.findall(r"\benum\s+(\w+)", text))
    messages = {}
    for name, body in re.findall(r"\bmessage\s+(\w+)\s*\{((?:[^{}]|\{[^{}]*\})*)\}", text):
        fields = re.findall(r"(repeated\s+)?(\w+)\s+(\w+)\s*=\s*(\d+)\s*;", body)
        messages[name] = {
            int(number): Field("uint32" if kind in enums else kind, field, int(number), bool(repeated))
            for repeated, kind, field, number in fields
        }
    return messages


def varint(data, at):
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            raise Malformed("cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise Malformed("a number of more than ten bytes")


def number(kind, raw):
    """What a varint means for a field of this kind."""
    if kind in ("sint32", "sint64"):
        return (raw >> 1) ^ -(raw & 1)
    if kind == "bool":
        return raw != 0
    return raw & 0xFFFF_FFFF if kind == "uint32" else raw


def cut(data, at, length):
    if at + length > len(data):
        raise Malformed("cut short")
    return data[at : at + length], at + length


def raw_field(data, at):
    """Field number, wire type and content of the field that begins here, and where the next one does."""
    key, at = varint(data, at)
    wire = key & 7
    if wire == VARINT:
        content, at = varint(data, at)
    elif wire == FIXED64:
        content, at = cut(data, at, 8)
    elif wire == FIXED32:
        content, at = cut(data, at, 4)
    elif wire == LENGTH:
        length, at = varint(data, at)
        content, at = cut(data, at, length)
    else:
        raise Malformed(f"wire type {wire}")
    return key >> 3, wire, content, at


def decode(messages, name, data):
    """A message of this name as a dict. A message inside it that is absent is None."""
    fields = messages[name]
    found = {field.name: empty(messages, field) for field in fields.values()}
    at = 0
    while at < len(data):
        tag, wire, content, at = raw_field(data, at)
        field = fields.get(tag)
        if field is None:
            continue
        values = read(messages, field, wire, content)
        if field.repeated:
            found[field.name].extend(values)
        else:
            found[field.name] = values[-1]
    return found


def empty(messages, field):
    if field.repeated:
        return []
    if field.kind in messages:
        return None
    return {"string": "", "bytes": b"", "bool": False}.get(field.kind, 0)


def read(messages, field, wire, content):
    if field.kind in messages and wire == LENGTH:
        return [decode(messages, field.kind, content)]
    if field.kind == "string" and wire == LENGTH:
        try:
            return [content.decode()]
        except UnicodeDecodeError as error:
            raise Malformed(f"{field.name} is no UTF-8") from error
    if field.kind == "fixed64" and wire in (FIXED64, LENGTH):
        if len(content) % 8 or (wire == LENGTH and not field.repeated):
            raise Malformed(field.name)
        return [int.from_bytes(content[i : i + 8], "little") for i in range(0, len(content), 8)]
    if field.kind in messages or field.kind in ("string", "bytes", "fixed64"):
        raise Malformed(f"{field.name} has wire type {wire}")
    if wire == VARINT:
        return [number(field.kind, content)]
    if wire == LENGTH and field.repeated:
        values, at = [], 0
        while at < len(content):
            value, at = varint(content, at)
            values.append(number(field.kind, value))
        return values
    raise Malformed(f"{field.name} has wire type {wire}")


def encode(messages, name, values):
    """A dict as a message of this name. Of numbers only unsigned ones, which is all that an acknowledgement has."""
    out = bytearray()
    for field in messages[name].values():
        value = values.get(field.name)
        items = value if field.repeated else [value] if value else []
        for item in items or []:
            out += encode_field(messages, field, item)
    return bytes(out)


def encode_field(messages, field, item):
    if field.kind == "fixed64":
        return to_varint(field.number << 3 | FIXED64) + item.to_bytes(8, "little")
    if field.kind == "string" or field.kind in messages:
        content = item.encode() if field.kind == "string" else encode(messages, field.kind, item)
        return to_varint(field.number << 3 | LENGTH) + to_varint(len(content)) + content
    return to_varint(field.number << 3 | VARINT) + to_varint(int(item))


def to_varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
