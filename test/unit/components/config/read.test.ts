import { expect, test } from "vitest";
import { readConfiguration } from "../../../../components/config/read.ts";
import { Refusal } from "../../../../runtime/refusal.ts";
import { fixtureHandler } from "../../runtime/fixtures.ts";
import { digest, localCluster, mistakesIn, source, stack, withGroups } from "./stacks.ts";

test("a configuration is complete: defaults filled in, manifests read, groups sorted", async () => {
  const entries = {
    ...withGroups({ b: { nodes: { names: ["n2"] } }, a: { nodes: { names: ["n1"] }, atOnce: 3 } }),
    registry: { prefix: "mirror.example:5000/apps" },
  };
  const { image, groups } = await readConfiguration(source(entries));
  expect(image).toEqual({ reference: `mirror.example:5000/apps/edgeless/contrast-node-installer@${digest}` });
  expect(groups).toMatchObject([
    {
      name: "a",
      distribution: { name: "containerd" },
      atOnce: 3,
      minimumNodes: 1,
      ignoreNodes: [],
      stallTimeout: 600,
      tolerations: [],
      priorityClass: "system-node-critical",
      installerPod: { labels: {}, annotations: {}, requests: {}, limits: {} },
      verifySandbox: false,
      onDestroy: "uninstall",
      runtimes: [{ platform: "metal-qemu-snp", handler: fixtureHandler("contrast-go"), overhead: { teeKeys: false } }],
    },
    { name: "b", atOnce: 1 },
  ]);
  expect(groups[0]?.runtimes[0]?.manifest.name).toBe("fixture-contrast-go");
});

test("a local cluster takes the image that was built here", async () => {
  const { image } = await readConfiguration(source(localCluster()));
  expect(image).toEqual({ localDigest: digest });
});

test("an image that has not been built yet is a mistake in the configuration, too", async () => {
  const imageDigest = async () => {
    throw new Refusal("image-missing", "There is no image in .local/image. Build it: npm run image.");
  };
  expect(await mistakesIn(localCluster(), { imageDigest })).toEqual([
    'installerImage: "local" cannot be used: There is no image in .local/image. Build it: npm run image.',
  ]);
});

test("what is wrong with the machine is not called a mistake of the configuration", async () => {
  const imageDigest = async () => {
    throw new Error("EIO: i/o error");
  };
  await expect(readConfiguration(source(localCluster(), { imageDigest }))).rejects.toThrow("EIO: i/o error");
});

test("one mistake is one, several are counted", async () => {
  const said = async (entries: Record<string, unknown>) =>
    await readConfiguration(source(entries)).then(
      () => "",
      (error: Error) => error.message.split("\n")[0],
    );
  expect(await said(stack({ cluster: undefined }))).toBe("The stack's configuration has a mistake:");
  expect(await said(stack({ cluster: undefined, group: {} }))).toBe("The stack's configuration has 2 mistakes:");
});
