// Reads /openapi.json and makes a form of every operation: fill in, send, see the answer and the curl that does the same.
// No library, no network beyond this server; texts only ever become text nodes.
"use strict";

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const shellQuoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";
const pretty = (value) => JSON.stringify(value, null, 1);
const nameOf = (reference) => reference.slice(reference.lastIndexOf("/") + 1);

// A schema with its references followed `depth` times, for reading.
function resolved(schema, schemas, depth = 4) {
  if (Array.isArray(schema)) return schema.map((item) => resolved(item, schemas, depth));
  if (schema === null || typeof schema !== "object") return schema;
  if (schema.$ref) {
    const name = nameOf(schema.$ref);
    return depth > 0 ? resolved(schemas[name], schemas, depth - 1) : name;
  }
  return Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, resolved(value, schemas, depth)]));
}

// A body that a model accepts: zeros of the smallest shape that fits its metadata.
function exampleBody(metadata) {
  const inputs = metadata.inputs.map(({ name, datatype, shape }) => {
    const dims = shape.map((size) => (size < 0 ? 1 : size));
    const value = { BYTES: "text", BOOL: false }[datatype] ?? 0;
    return { name, datatype, shape: dims, data: Array(dims.reduce((a, b) => a * b, 1)).fill(value) };
  });
  return JSON.stringify({ inputs });
}

// What the form says: { method, url, headers, body }.
function requestOf(form) {
  let path = form.path;
  const headers = {};
  for (const { name, place, input } of form.parameters) {
    if (place === "path") path = path.replace("{" + name + "}", encodeURIComponent(input.value));
    else if (input.value !== "") headers[name] = input.value;
  }
  const body = form.body && form.body.value !== "" ? form.body.value : undefined;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return { method: form.method, url: location.origin + path, headers, body };
}

function curlOf({ method, url, headers, body }) {
  const words = ["curl", "-s"];
  if (method !== "GET") words.push("-X", method);
  for (const [name, value] of Object.entries(headers)) words.push("-H", shellQuoted(name + ": " + value));
  if (body !== undefined) words.push("-d", shellQuoted(body));
  return [...words, shellQuoted(url)].join(" ");
}

async function send(form) {
  const request = requestOf(form);
  form.curl.textContent = curlOf(request);
  const started = performance.now();
  try {
    const { method, headers, body } = request;
    const response = await fetch(request.url, { method, headers, body });
    const text = await response.text();
    const took = (performance.now() - started).toFixed(1);
    form.status.textContent = `${response.status} ${response.statusText}, ${took} ms, ${text.length} characters`;
    form.status.className = response.ok ? "" : "bad";
    try {
      form.answer.textContent = pretty(JSON.parse(text));
    } catch {
      form.answer.textContent = text;
    }
  } catch (error) {
    form.status.textContent = String(error);
    form.status.className = "bad";
    form.answer.textContent = "";
  }
}

async function fillExample(form) {
  const model = form.parameters.find((parameter) => parameter.name === "model");
  const response = await fetch("/v2/models/" + encodeURIComponent(model.input.value));
  const answer = await response.json();
  if (response.ok) form.body.value = exampleBody(answer);
  else form.status.textContent = answer.error;
  form.curl.textContent = curlOf(requestOf(form));
}

function parameterField(parameter) {
  const input = element("input", { placeholder: parameter.required ? "required" : "", size: 32 });
  if (parameter.name === "model") input.setAttribute("list", "models");
  const text = element("span", { textContent: " " + (parameter.description ?? "") });
  const field = element("label", {}, element("code", { textContent: parameter.name }), " ", input, text);
  return { name: parameter.name, place: parameter.in, input, field };
}

function schemaBlock(title, content, schemas) {
  const schema = content?.["application/json"]?.schema;
  if (!schema || Object.keys(schema).length === 0) return [];
  const name = schema.$ref ? nameOf(schema.$ref) : "";
  const inside = element("pre", { textContent: pretty(resolved(schema, schemas)) });
  return [element("details", {}, element("summary", { textContent: `${title} ${name}` }), inside)];
}

function operationBlock(path, method, about, schemas) {
  const form = { path, method: method.toUpperCase(), parameters: (about.parameters ?? []).map(parameterField) };
  form.curl = element("pre", {});
  form.status = element("p", {});
  form.answer = element("pre", {});
  const inside = element("div", { className: "inside" });
  if (about.description) inside.append(element("p", { textContent: about.description }));
  inside.append(...form.parameters.map((parameter) => parameter.field));
  if (about.requestBody) {
    form.body = element("textarea", { spellcheck: false, placeholder: "JSON body" });
    inside.append(...schemaBlock("Body:", about.requestBody.content, schemas), form.body);
  }
  for (const [code, response] of Object.entries(about.responses)) {
    if (code.startsWith("2")) inside.append(...schemaBlock(`Answer ${code}:`, response.content, schemas));
    else inside.append(element("div", { textContent: `${code}: ${response.description}` }));
  }
  inside.append(element("button", { textContent: "Send", onclick: () => send(form) }));
  if (path.endsWith("/infer")) {
    inside.append(element("button", { textContent: "Fill in zeros for this model", onclick: () => fillExample(form) }));
  }
  inside.append(form.curl, form.status, form.answer);
  inside.oninput = () => (form.curl.textContent = curlOf(requestOf(form)));
  form.curl.textContent = curlOf(requestOf(form));
  const badge = element("code", { className: "method " + method, textContent: form.method });
  const route = element("code", { textContent: " " + path });
  const title = element("summary", {}, badge, route, element("span", { textContent: about.summary ?? "" }));
  return element("details", { id: about.operationId }, title, inside);
}

function render(document_) {
  const schemas = document_.components.schemas;
  const sections = document_.tags.map((tag) => {
    const section = element("section", {});
    const text = element("small", { textContent: tag.description });
    section.append(element("h2", {}, tag.name, text));
    for (const [path, item] of Object.entries(document_.paths)) {
      for (const [method, about] of Object.entries(item)) {
        if (about.tags[0] === tag.name) section.append(operationBlock(path, method, about, schemas));
      }
    }
    return section;
  });
  document.getElementById("operations").replaceChildren(...sections);
  document.getElementById("about").textContent = `Version ${document_.info.version}. ${document_.info.description}`;
}

async function start() {
  try {
    render(await (await fetch("/openapi.json")).json());
    const index = await (await fetch("/v2/repository/index", { method: "POST", body: '{"ready":true}' })).json();
    const names = [...new Set(index.map((entry) => entry.name))];
    document.getElementById("models").replaceChildren(...names.map((value) => element("option", { value })));
  } catch (error) {
    document.getElementById("operations").textContent = "The page could not be made: " + error;
  }
}

if (typeof document !== "undefined") start();
if (typeof module !== "undefined") module.exports = { curlOf, exampleBody, resolved, shellQuoted };
