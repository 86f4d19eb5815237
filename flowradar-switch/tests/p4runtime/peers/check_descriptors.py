"""Compares the project's protocol files with those of the PyPI package p4runtime.

Usage: check_descriptors.py DESCRIPTORS, a serialised FileDescriptorSet. Every message, field, enum and
method must be there on both sides with the same name, number, type, label and oneof.
"""

import sys

from google.protobuf import descriptor_pb2
from google.rpc import code_pb2, status_pb2
from p4.config.v1 import p4info_pb2, p4types_pb2
from p4.v1 import p4data_pb2, p4runtime_pb2


def messages(prefix, descriptors, found):
    for message in descriptors:
        name = f"{prefix}.{message.name}"
        for field in message.field:
            oneof = None
            if field.HasField("oneof_index"):
                oneof = message.oneof_decl[field.oneof_index].name
            found[name, field.name] = (
                field.number, field.type, field.label, field.type_name, oneof)
        messages(name, message.nested_type, found)
        enums(name, message.enum_type, found)


def enums(prefix, descriptors, found):
    for enum in descriptors:
        for value in enum.value:
            found[f"{prefix}.{enum.name}", value.name] = value.number


def everything(files):
    found = {}
    for file in files:
        if file.package.startswith("google.protobuf"):
            continue
        prefix = f".{file.package}"
        messages(prefix, file.message_type, found)
        enums(prefix, file.enum_type, found)
        for service in file.service:
            for method in service.method:
                found[f"{prefix}.{service.name}", method.name] = (
                    method.input_type, method.output_type,
                    method.client_streaming, method.server_streaming)
    return found


def of_module(module):
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file


def main():
    modules = [p4runtime_pb2, p4info_pb2, p4types_pb2, p4data_pb2, status_pb2, code_pb2]
    theirs = everything(of_module(module) for module in modules)
    with open(sys.argv[1], "rb") as file:
        ours = everything(descriptor_pb2.FileDescriptorSet.FromString(file.read()).file)
    differences = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
    for key in differences:
        print(f"{key}: ours {ours.get(key)}, theirs {theirs.get(key)}", file=sys.stderr)
    print(f"{len(theirs)} fields, values and methods compared", file=sys.stderr)
    sys.exit(1 if differences or len(theirs) < 500 else 0)


main()
