// What all parts of the page need: the service, and elements made of what it says.
// Everything that comes from outside goes into the page as text.

export const element = (id) => document.getElementById(id);

export class ServiceError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The answer of the service; paths are relative, so that a proxy may put it anywhere. */
export async function ask(path, fields, signal) {
  const headers = {};
  if (element("key").value) headers["x-api-key"] = element("key").value;
  if (fields) headers["content-type"] = "application/json";
  const response = await fetch(path, {
    method: fields ? "POST" : "GET",
    headers,
    body: fields && JSON.stringify(fields),
    cache: "no-store",
    signal,
  });
  const answer = await response.json().catch(() => null);
  if (response.ok) return answer;
  const said = answer?.error?.message ?? "the service gave no reason";
  throw new ServiceError(response.status, said);
}

export function cell(kind, text, attributes = {}) {
  const made = document.createElement(kind);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** What people are told of an error; they are asked for a key if that is missing. */
export function explained(error) {
  const refused = error instanceof ServiceError;
  if (refused && error.status === 401) element("key-field").hidden = false;
  return refused ? error.message : "The service does not answer.";
}
