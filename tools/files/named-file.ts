import { readFile } from "node:fs/promises";
import { Refusal } from "../../runtime/refusal.ts";
import { cannotBeRead } from "../../runtime/unreadable.ts";

/**
 * The text of a file that the user has named.
 *
 * @param what it is to be, for the message: "trusted root"
 * @throws Refusal where it cannot be read
 */
export async function namedText(what: string, path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new Refusal("unreadable", `The ${what} ${cannotBeRead(path, error)}.`, { cause: error });
  }
}

/**
 * The certificates of the CA that signs a registry's or a mirror's.
 *
 * @throws Refusal for a file that has none
 */
export async function namedCa(path: string): Promise<string> {
  const text = await namedText("CA's file", path);
  if (text.includes("-----BEGIN CERTIFICATE-----")) return text;
  throw new Refusal(
    "no-certificate",
    `${path} holds no certificate: expected the CA's in PEM, -----BEGIN CERTIFICATE-----.`,
  );
}
