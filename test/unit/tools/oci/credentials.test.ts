import { expect, test } from "vitest";
import { registryCredentials } from "../../../../tools/oci/credentials.ts";

const origin = new URL("https://registry.example.com");

test("a name without a password is no login: it is said before anything is sent", async () => {
  await expect(registryCredentials(origin, { REGISTRY_USERNAME: "user", DOCKER_CONFIG: "/nowhere" })).rejects.toThrow(
    'REGISTRY_USERNAME is "user", but REGISTRY_PASSWORD is not set.',
  );
});

test("an empty password is one, and an empty name is none", async () => {
  const given = { REGISTRY_USERNAME: "user", REGISTRY_PASSWORD: "", DOCKER_CONFIG: "/nowhere" };
  expect(await registryCredentials(origin, given)).toEqual({ username: "user", password: "" });
  expect(await registryCredentials(origin, { ...given, REGISTRY_USERNAME: "" })).toBeUndefined();
});
