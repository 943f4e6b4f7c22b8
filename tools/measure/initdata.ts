import { toHex } from "../../measure/bytes.ts";
import {
  decodeInitdata,
  documentText,
  encodeInitdata,
  hostData,
  initdataDigest,
  isInitdataDisk,
  mrConfigId,
  policyDigest,
  readInitdataDisk,
} from "../../workload/initdata.ts";
import { readWhole } from "./files.ts";

/** Of a file: the document, or the disk by which Kata hands it to the guest. */
export const initdata = (file: string): object => {
  const document = documentIn(readWhole(file));
  return { ...digestsOf(document), annotation: encodeInitdata(document) };
};

export const decoded = (annotation: string): object => {
  const document = decodeInitdata(annotation);
  return { ...digestsOf(document), document };
};

export const policy = (file: string): object => ({ policyDigest: policyDigest(readWhole(file)) });

function digestsOf(document: string): object {
  const { algorithm, digest } = initdataDigest(document);
  return {
    algorithm,
    digest: toHex(digest),
    hostData: toHex(hostData(document)),
    mrConfigId: toHex(mrConfigId(document)),
  };
}

const documentIn = (bytes: Uint8Array): string =>
  isInitdataDisk(bytes) ? readInitdataDisk(bytes) : documentText(bytes, "The initdata document");
