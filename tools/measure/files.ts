import { createHash } from "node:crypto";
import { chunksOf, largestWhole } from "../../measure/bytes.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { withFile } from "../files/byte-source.ts";

export const readWhole = (path: string) =>
  withFile(path, (source) => {
    if (source.size > largestWhole)
      throw new Refusal("file-too-large", `${path} has ${source.size} bytes, expected at most ${largestWhole}.`);
    return source.read(0, source.size);
  });

export const digestOf = (path: string, algorithm: "sha256" | "sha384") =>
  withFile(path, (source) => {
    const digest = createHash(algorithm);
    for (const chunk of chunksOf(source)) digest.update(chunk);
    return digest.digest();
  });
