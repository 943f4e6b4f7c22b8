import { commentsOf, postComment } from "../../review/forge/comment.ts";
import { readText } from "./files.ts";

export async function comment(file: string): Promise<void> {
  const body = await readText(file);
  console.log(`The comment was ${await postComment(commentsOf(process.env), body)}.`);
}
