// The CRI's messages as bytes: the fields used here, from k8s.io/cri-api, pkg/apis/runtime/v1/api.proto. Field numbers never
// change; a field that a message lacks has its type's zero.
import { PbfReader, PbfWriter } from "pbf";
import type { Condition, Sandbox, SandboxConfig, SandboxMetadata, Status } from "./cri.ts";

/** Writes the fields of one message. */
type Write<T> = (message: T, writer: PbfWriter) => void;
/** Reads the field of this number into the message, if it is one of ours; what is not read is skipped. */
export type Read<T> = (field: number, message: T, reader: PbfReader) => void;

export function encoded<T>(write: Write<T>, message: T): Uint8Array {
  const writer = new PbfWriter();
  write(message, writer);
  return writer.finish();
}

/** The bytes are none of the messages that they should be. */
export class MalformedMessage extends Error {
  override readonly name = "MalformedMessage";
}

/** Reads into `empty`, which holds what a message without fields means. Throws `MalformedMessage`. */
export function decoded<T>(read: Read<T>, empty: T, bytes: Uint8Array): T {
  const reader = new PbfReader(bytes);
  try {
    const message = reader.readFields(read, empty);
    if (reader.pos === bytes.length) return message;
  } catch (error) {
    throw new MalformedMessage((error as Error).message);
  }
  throw new MalformedMessage("its last field is longer than it");
}

export const writeNothing: Write<object> = () => undefined;
export const readNothing: Read<object> = () => undefined;

export const writeStatusRequest: Write<{ verbose: boolean }> = ({ verbose }, writer) =>
  writer.writeBooleanField(1, verbose);

export const writeSandboxId: Write<string> = (id, writer) => writer.writeStringField(1, id);

export const writeRunRequest: Write<{ config: SandboxConfig; handler: string }> = ({ config, handler }, writer) => {
  writer.writeMessage(1, writeSandboxConfig, config);
  writer.writeStringField(2, handler);
};

const writeSandboxConfig: Write<SandboxConfig> = ({ metadata, hostname, dnsConfig, labels, linux }, writer) => {
  writer.writeMessage(1, writeMetadata, metadata);
  writer.writeStringField(2, hostname);
  writer.writeMessage(4, writeDnsConfig, dnsConfig);
  for (const label of Object.entries(labels)) writer.writeMessage(6, writeMapEntry, label);
  writer.writeMessage(8, ({ cgroupParent }, linuxWriter) => linuxWriter.writeStringField(1, cgroupParent), linux);
};

const writeMetadata: Write<SandboxMetadata> = ({ name, uid, namespace, attempt }, writer) => {
  writer.writeStringField(1, name);
  writer.writeStringField(2, uid);
  writer.writeStringField(3, namespace);
  writer.writeVarintField(4, attempt);
};

const writeDnsConfig: Write<SandboxConfig["dnsConfig"]> = ({ options }, writer) => {
  for (const option of options) writer.writeStringField(3, option);
};

const writeMapEntry: Write<[key: string, value: string]> = ([key, value], writer) => {
  writer.writeStringField(1, key);
  writer.writeStringField(2, value);
};

export const readVersion: Read<{ runtimeName: string; runtimeVersion: string }> = (field, version, reader) => {
  if (field === 2) version.runtimeName = reader.readString();
  else if (field === 3) version.runtimeVersion = reader.readString();
};

export const readStatus: Read<Status> = (field, status, reader) => {
  if (field === 1) reader.readMessage(readRuntimeStatus, status);
  else if (field === 2) {
    const [key, value] = reader.readMessage<[string, string]>(readMapEntry, ["", ""]);
    status.info[key] = value;
  }
};

const readRuntimeStatus: Read<Status> = (field, { conditions }, reader) => {
  if (field !== 1) return;
  const condition: Condition = { type: "", status: false, reason: "", message: "" };
  conditions.push(reader.readMessage(readCondition, condition));
};

const readCondition: Read<Condition> = (field, condition, reader) => {
  if (field === 1) condition.type = reader.readString();
  else if (field === 2) condition.status = reader.readBoolean();
  else if (field === 3) condition.reason = reader.readString();
  else if (field === 4) condition.message = reader.readString();
};

const readMapEntry: Read<[key: string, value: string]> = (field, entry, reader) => {
  if (field === 1) entry[0] = reader.readString();
  else if (field === 2) entry[1] = reader.readString();
};

export const readSandboxes: Read<Sandbox[]> = (field, sandboxes, reader) => {
  if (field !== 1) return;
  const metadata = { name: "", uid: "", namespace: "", attempt: 0 };
  const sandbox: Sandbox = { id: "", metadata, ready: true, runtimeHandler: "" };
  sandboxes.push(reader.readMessage(readSandbox, sandbox));
};

const readSandbox: Read<Sandbox> = (field, sandbox, reader) => {
  if (field === 1) sandbox.id = reader.readString();
  else if (field === 2) reader.readMessage(readMetadata, sandbox.metadata);
  // SANDBOX_READY is 0.
  else if (field === 3) sandbox.ready = reader.readVarint() === 0;
  else if (field === 7) sandbox.runtimeHandler = reader.readString();
};

const readMetadata: Read<SandboxMetadata> = (field, metadata, reader) => {
  if (field === 1) metadata.name = reader.readString();
  else if (field === 2) metadata.uid = reader.readString();
  else if (field === 3) metadata.namespace = reader.readString();
  else if (field === 4) metadata.attempt = reader.readVarint();
};

export const readSandboxId: Read<{ id: string }> = (field, answer, reader) => {
  if (field === 1) answer.id = reader.readString();
};
