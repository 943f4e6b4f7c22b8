import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { manifestSchema } from "../../runtime/manifest.ts";
import { packageRoot } from "../../tools/files/project.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { check } from "../../tools/process/run.ts";
import { goProgram } from "../../tools/programs/go.ts";

const fixture = (name: string) => join(packageRoot, "test/fixtures/manifests", `${name}.json`);

/** What the command writes to its standard output. */
async function written(...args: string[]): Promise<Buffer> {
  const words = [join(packageRoot, "tools/cli/main.ts"), "measure", "manifest", ...args];
  return (await promisify(execFile)(process.execPath, words, { encoding: "buffer" })).stdout;
}

test("Veraison's library reads the CoRIM of two payloads, with the values of the table, and would write the same bytes", async () => {
  const names = ["fixture-contrast-go", "fixture-contrast-go-next"];
  const common = ["--platform", "metal-qemu-snp", "--vcpus", "1-2"];
  const [chip, tcb] = ["5c".repeat(64), "bootloader=4,tee=0,snp=22,microcode=213"];
  const hosts = ["--chip-id", chip, "--snp-tcb", tcb];
  const document = await written(...names.map(fixture), ...common, "--for", "corim", ...hosts);
  const directory = await mkdtemp(join(tmpdir(), "corim-"));
  onTestFinished(() => rm(directory, { recursive: true }));
  const file = join(directory, "snp.corim");
  await writeFile(file, document);

  const reader = { name: "corim-reader", version: "1.1.3-0.20251002172919", packages: ["."] };
  const module = join(import.meta.dirname, "modules", "corim-reader");
  const text = await check(join(await goProgram({ ...reader, module }, toStderr), "corim-reader"), [file]);
  const expected = await Promise.all(
    names.map(async (name) => {
      const { snp } = JSON.parse((await written(fixture(name), ...common)).toString());
      const payload = manifestSchema.parse(JSON.parse(await readFile(fixture(name), "utf8"))).name;
      return ["EPYC-Milan", "EPYC-Genoa"].flatMap((model) =>
        [1, 2].map((vcpus) => ({
          id: `contrast-runtime/${payload}/${model}/${vcpus}-vcpus`,
          digest: snp[model][vcpus],
        })),
      );
    }),
  );
  expect(JSON.parse(text)).toEqual({
    id: expect.stringMatching(/^contrast-runtime\/[0-9a-f]{64}$/),
    profile: "tag:amd.com,2024:snp-corim-profile",
    deterministic: true,
    comids: expected.flat().map(({ id, digest }) => ({
      "tag-identity": { id: expect.stringMatching(new RegExp(`^${id}/[0-9a-f]{64}$`)) },
      triples: {
        "reference-values": [
          {
            environment: {
              class: { id: { type: "oid", value: "1.3.6.1.4.1.3704.3.1" } },
              instance: { type: "bytes", value: Buffer.from(chip, "hex").toString("base64") },
            },
            measurements: [
              measurement(2, { "raw-value": { type: "bytes", value: "AAADAAAAAAA=" } }),
              measurement(641, { digests: [`sha-384;${Buffer.from(digest, "hex").toString("base64")}`] }),
              measurement(647, { svn: { type: "exact-value", value: Number(0xd516000000000004n) } }),
            ],
          },
        ],
      },
    })),
  });
  // No number of JavaScript's holds it.
  expect(text).toContain(`"value":${0xd516000000000004n}`);
});

const measurement = (field: number, value: object) => ({ key: { type: "uint", value: field }, value });
