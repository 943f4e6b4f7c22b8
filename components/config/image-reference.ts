import * as z from "zod";

/** Without a dot, a port or localhost, containerd would take the first component for a Docker Hub user. */
export const registryHost = "([a-z0-9-]+(\\.[a-z0-9-]+)+|localhost|[a-z0-9-]+(?=:\\d))(:\\d+)?";

const digest = /^@sha256:[0-9a-f]{64}$/;
const reference = new RegExp(`^${registryHost}(/[a-z0-9._-]+)+`);

/** registry/repository@sha256:…, or one other word. */
export const image = (word?: string, meaning = "") =>
  z.string().check(({ value, issues }) => {
    const rest = value.replace(reference, "");
    if (value === word || digest.test(rest)) return;
    issues.push({ code: "custom", message: imageMistake(value, rest, meaning), input: value });
  });
export const imageReference = image();

function imageMistake(value: string, rest: string, meaning: string): string {
  if (rest === value && digest.test(value.slice(value.indexOf("@"))) && /^[a-z0-9._/-]+@/.test(value))
    return "does not say which registry: must begin with a host, such as docker.io/";
  if (rest.startsWith(":"))
    return rest.includes("@")
      ? "has a tag besides the digest, which alone counts: leave out the tag"
      : "names an image by tag, which may be a different image tomorrow: must end in @sha256:<64 hex digits>";
  return `must be registry/repository@sha256:<64 hex digits>${meaning}`;
}
