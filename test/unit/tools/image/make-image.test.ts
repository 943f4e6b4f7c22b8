import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { makeImage } from "../../../../tools/image/installer-image.ts";

test("no image is made without a payload, and the refusal says how to get one", async () => {
  const empty = await mkdtemp(join(tmpdir(), "payloads-"));
  try {
    await expect(makeImage({ payload: [] }, empty)).rejects.toThrow(
      "There is no payload on this machine, and an image without one installs nothing. Fetch one: contrast-runtime lock",
    );
  } finally {
    await rm(empty, { recursive: true });
  }
});
